"""Numbers, plots and texts about a model's probabilities: arrays in, nothing read and nothing written.

It imports `understudy.schema`, and `understudy.terminal` to show how far resampling has come. Others use `metrics`,
`plots`, `windows` and `cards`.
"""
