"""OpenAI's dialects, both ways: chat completions and their older form, responses, and the list of models.

Each is a table of what is asked, the objects of what is answered, and an encoder. No stage comes in here, and nothing
of Anthropic's.
"""
