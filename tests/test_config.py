import dataclasses
from dataclasses import dataclass
from typing import Optional

import pytest

from megatron_biollm.config import (
    UserError,
    dump_config,
    help_text,
    load_config,
    option,
    section,
)
from megatron_biollm.recipes.run_config import RunConfig, load_run_config


@dataclass
class Engine:
    cylinders: int = option(4, "how many")
    fuel: Optional[str] = option(None, "what it burns")
    gears: list[int] = option([1, 2], "which")

    def __post_init__(self):
        if self.cylinders < 1:
            raise UserError(f"engine.cylinders={self.cylinders} must be at least 1")


@dataclass
class Car:
    engine: Engine = section(Engine, "what moves it")
    doors: int = option(3, "how many")
    weight: float = option(900.0, "kilograms")
    electric: bool = option(False, "by wire")


def yaml_file(tmp_path, text):
    path = tmp_path / "car.yaml"
    path.write_text(text)
    return path


def test_later_sources_win(tmp_path):
    path = yaml_file(tmp_path, "doors: 5\nengine:\n  cylinders: 6\n  fuel: petrol\n")
    car = load_config(Car, path, ["engine.cylinders=8"])
    assert (car.doors, car.engine.cylinders, car.engine.fuel, car.weight) == (5, 8, "petrol", 900.0)


def test_a_later_file_goes_over_an_earlier_one_field_by_field(tmp_path):
    first = yaml_file(tmp_path, "doors: 5\nengine:\n  cylinders: 6\n  gears: [1, 2, 3]\n")
    second = tmp_path / "second.yaml"
    second.write_text("engine:\n  cylinders: 8\n  gears: [1]\n")
    car = load_config(Car, [first, second], ["doors=4"])
    assert (car.doors, car.engine.cylinders, car.engine.gears) == (4, 8, [1])
    assert load_config(Car, [second, str(first)]).engine.cylinders == 6
    assert load_config(Car, []) == load_config(Car)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dors=5", "unknown config key dors: did you mean doors?"),
        ("engine.cylinder=5", "unknown config key engine.cylinder: did you mean engine.cylinders?"),
        ("engnie.cylinders=5", "unknown config key engnie: did you mean engine?"),
        ("xyzzy=5", "unknown config key xyzzy: known: engine, doors, weight, electric"),
        ("doors=many", "doors: .*'many'.*Integer"),
        ("doors=2.5", "doors: .*2.5.*Integer"),
        ("electric=perhaps", "electric: .*bool"),
        ("engine.gears=3", "engine.gears: "),
        ("engine=V8", "engine is a section; set its fields, for example engine.cylinders=..."),
        ("engine.cylinders=0", "engine.cylinders=0 must be at least 1"),
        ("doors", "override 'doors' is not of the form section.field=value"),
    ],
)
def test_a_wrong_override_is_named_with_the_remedy(override, message):
    with pytest.raises(UserError, match=message):
        load_config(Car, None, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dors: 5\n", "did you mean doors"),
        ("engine:\n  fuel: [1, 2]\n", "engine.fuel: "),
        ("- doors\n", "must hold sections"),
        ("doors: [1\n", "not readable YAML"),
    ],
)
def test_a_wrong_file_is_named_with_the_remedy(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load_config(Car, yaml_file(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="absent.yaml does not exist; give the path"):
        load_config(Car, tmp_path / "absent.yaml")


def test_what_is_dumped_loads_to_an_equal_object(tmp_path):
    car = load_config(Car, None, ["engine.fuel='yes: no'", "engine.gears=[3,4]", "weight=1e3"])
    assert load_config(Car, yaml_file(tmp_path, dump_config(car))) == car


def test_a_run_survives_the_round_trip(tmp_path):
    config = load_run_config(
        None, ["model.preset=tiny", "model.vocab_size=1000", "training.seed=7"]
    )
    path = tmp_path / "run.yaml"
    path.write_text(dump_config(config))
    assert load_run_config(path) == config


def names(cls, prefix=""):
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(field.type):
            yield from names(field.type, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field.metadata.get("help")


def test_help_has_a_line_for_every_field_of_a_run():
    lines = {line.split()[0]: line for line in help_text(RunConfig).splitlines() if line.strip()}
    for name, text in names(RunConfig):
        assert text, f"{name} has no help"
        assert text in lines[name]
