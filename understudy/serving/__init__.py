"""The servers of the version in a stage: MLflow's own, and the live one, which follows the stage.

It imports every other room but `training` and `gate`. Nobody imports it: `serve.sh` starts it.
"""
