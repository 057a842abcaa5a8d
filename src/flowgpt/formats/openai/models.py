"""OpenAI's list of models, and one model of it. Values only.

Source: OpenAI's OpenAPI description, ListModelsResponse and Model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from ..values import Value


class Model(Value, frozen=True, kw_only=True):
    """One id that may be asked. `created`: Unix seconds, 0 when unknown. `alias_of`: what it stands for."""

    id: str
    created: int
    owned_by: str
    alias_of: str | None = None
    object: Literal["model"] = "model"


class ModelList(Value, frozen=True, kw_only=True):
    """All ids that may be asked; also an iterable of its `data`."""

    data: list[Model]
    object: Literal["list"] = "list"

    def __iter__(self) -> Iterator[Model]:
        return iter(self.data)


def model_list(
    ids: Iterable[str], aliases: Mapping[str, str], *, created: Mapping[str, int], owned_by: str
) -> ModelList:
    """The models in their order, then the aliases. `created`: by id, for those where it is known."""
    rows = [(id_, None) for id_ in ids] + [*aliases.items()]
    return ModelList(
        data=[Model(id=id_, created=created.get(id_, 0), owned_by=owned_by, alias_of=to) for id_, to in rows]
    )
