"""The tables of the file, as the steps that made them. Data alone: `file.py` runs them.

Number n makes a file of version n from one of version n - 1. What was released is never changed; append.
"""

from __future__ import annotations

from collections.abc import Sequence

MIGRATIONS: Sequence[Sequence[str]] = (
    (
        "CREATE TABLE keys (name TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, created_s REAL NOT NULL)",
        "CREATE TABLE responses (id TEXT PRIMARY KEY, owner TEXT NOT NULL, created_s REAL NOT NULL, "
        "expires_s REAL NOT NULL, body BLOB NOT NULL, input_items BLOB NOT NULL, turns BLOB NOT NULL)",
        "CREATE INDEX responses_by_expiry ON responses (expires_s)",
    ),
    (
        # written: grows with each conversation that is gone on with. Clocks go backwards, this does not (N13).
        "CREATE TABLE conversations (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, "
        "created_s REAL NOT NULL, updated_s REAL NOT NULL, branch_of TEXT NOT NULL, written INTEGER NOT NULL)",
        "CREATE INDEX conversations_by_writing ON conversations (written)",
        # open: the turn is a draft. Its text goes on in `drafts`, and is not in the index of words yet.
        "CREATE TABLE turns (number INTEGER PRIMARY KEY, conversation INTEGER NOT NULL, place INTEGER NOT NULL, "
        "role TEXT NOT NULL, text TEXT NOT NULL, created_s REAL NOT NULL, model TEXT NOT NULL, system TEXT NOT NULL, "
        "parameters TEXT NOT NULL, verdict TEXT NOT NULL, code TEXT NOT NULL, first_text_s REAL, total_s REAL, "
        "open INTEGER NOT NULL, UNIQUE (conversation, place))",
        "CREATE INDEX turns_open ON turns (number) WHERE open",
        # upto: how many characters of drafts the turn has with this one.
        "CREATE TABLE drafts (turn INTEGER NOT NULL, upto INTEGER NOT NULL, text TEXT NOT NULL, "
        "PRIMARY KEY (turn, upto)) WITHOUT ROWID",
        "CREATE VIEW ended AS SELECT number, text FROM turns WHERE NOT open",
        # Three letters each, so that every language has words.
        "CREATE VIRTUAL TABLE words USING fts5 "
        "(text, content = 'ended', content_rowid = 'number', tokenize = 'trigram')",
        "CREATE TRIGGER turns_added AFTER INSERT ON turns WHEN NOT new.open BEGIN "
        "INSERT INTO words (rowid, text) VALUES (new.number, new.text); END",
        "CREATE TRIGGER turns_changed AFTER UPDATE OF text, open ON turns BEGIN "
        "INSERT INTO words (words, rowid, text) SELECT 'delete', old.number, old.text WHERE NOT old.open; "
        "INSERT INTO words (rowid, text) SELECT new.number, new.text WHERE NOT new.open; END",
        "CREATE TRIGGER turns_deleted AFTER DELETE ON turns WHEN NOT old.open BEGIN "
        "INSERT INTO words (words, rowid, text) VALUES ('delete', old.number, old.text); END",
    ),
)
