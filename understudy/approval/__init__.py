"""Approval by a second person: a version goes to Production only if another account than the one that asked says so.

`requests` leaves requests, finds the open ones, turns one into a move for whoever approves it, and says where the
records show that nobody has. It imports `understudy.registry` and the rooms below it. Others use `requests`, where the
table declares `Limits(approval=True)`.
"""
