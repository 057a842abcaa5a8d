"""OpenAI's list of models, as literal JSON."""

from __future__ import annotations

from flowgpt.formats.openai.models import Model, model_list


def test_the_list_has_the_models_and_then_the_aliases_with_what_they_stand_for() -> None:
    """Provenance: OpenAI's OpenAPI, ListModelsResponse and Model: all that they require; ours: `alias_of`."""
    listed = model_list(["a", "new"], {"b": "a"}, created={"a": 5, "b": 6}, owned_by="us")

    head = {"object": "model", "owned_by": "us"}
    assert listed.model_dump() == {
        "object": "list",
        "data": [
            head | {"id": "a", "created": 5, "alias_of": None},
            head | {"id": "new", "created": 0, "alias_of": None},
            head | {"id": "b", "created": 6, "alias_of": "a"},
        ],
    }


def test_a_list_is_iterated_as_its_data() -> None:
    listed = model_list(["a"], {}, created={}, owned_by="us")

    assert list(listed) == listed.data == [Model(id="a", created=0, owned_by="us")]
