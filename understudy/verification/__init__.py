"""Which files may be loaded: the ones that training writes, and the ones that were registered, byte for byte.

It imports `understudy.tracking` and the rooms below it. Others use `admission` before a version is made, `manifest`
before a version is loaded, `inspection` for a model that is not registered, `repository` to run git.
"""
