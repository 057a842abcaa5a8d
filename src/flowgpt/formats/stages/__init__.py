"""The emulations: functions from pieces to pieces, each made by the `stage` of its module, and what they rely on.

No dialect comes in here: what a stage needs of a question stands in its `Ask`.
"""
