"""Anthropic's dialect, both ways: messages as they are asked and answered, and the count of a prompt's tokens.

No stage comes in here, and nothing of OpenAI's.
"""
