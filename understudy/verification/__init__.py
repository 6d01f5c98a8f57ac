"""Which files may be loaded: the ones that training writes, and the ones that were registered, byte for byte.

It imports `understudy.tracking` and the rooms below it. Others use `reference` before a model is saved, `inspection`
before a version is made and for a model that is not registered, `manifest` before a version is loaded, `version_cache`
to keep verified versions at hand, `repository` to run git.
"""
