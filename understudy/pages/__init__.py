"""What the live server shows to people: a form that asks the model, and its contract as an OpenAPI document.

It imports `schema` and `scoring`, and takes the stylesheet of `report`. Others use `site`, the files that a browser
loads, and `openapi`, which tells of a version what it takes and answers. No file asks another server for anything.
"""
