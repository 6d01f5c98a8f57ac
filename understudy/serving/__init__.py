"""The servers of the version in a stage: MLflow's own, and the live one, which follows the stage as it answers.

`serve.sh` starts either. It imports `understudy.scoring` and the rooms below it; and `tracking`, `verification` and
`registry`, which load MLflow, only in processes that end. Nobody imports it.
"""
