"""May a version go where it is asked to go?

`comparison` finds the champion and the held-out rows; `evidence` lets both versions, which are `loaded`, score them;
`live` says which rows of live traffic count, and `attempts` how often was asked before. `checks` holds each figure
against its limit, a `Check` each; a `Rule` says how the two areas under the ROC curve are compared; `decision` puts all
checks together into a `Decision`, which the registry records as a `Verdict`. The margin and the other limits are those
that `understudy/table.py` declares. It imports `understudy.registry` and the rooms below it. Others use
`evidence.decide`, and give it `live.LiveRows`.
"""
