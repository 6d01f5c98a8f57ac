"""Watching a version that has just gone to Production, and bringing back the one before it if it misbehaves.

It imports the rooms above it. Others use `trials` for what is on probation, and `watch.watch` to watch it. `counts`
reads the live server's metrics and its row log, and `looks` decides: counts and arrays in, signs of misbehaviour out.
"""
