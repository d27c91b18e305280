"""Commands are found by name, and the module of each is imported when it is wanted."""

import pkgutil
from importlib import import_module

import pytest
from typer.main import get_command

import hdi.cli
from hdi.cli.app import app
from hdi.cli.commands import MODULES, commands_of


def test_every_module_that_registers_commands_is_listed_with_just_those():
    modules = {m.name for m in pkgutil.iter_modules(hdi.cli.__path__) if m.name not in {"app", "commands"}}
    registering = {name for name in modules if hasattr(import_module(f"hdi.cli.{name}"), "register")}
    assert registering == set(MODULES)
    assert {name: tuple(commands_of(name)) for name in MODULES} == MODULES


def test_commands_come_in_the_order_in_which_they_are_listed():
    group = get_command(app)
    names = [name for module in MODULES.values() for name in module]
    assert group.list_commands(None) == list(group.commands) == names
    assert len(names) == len(set(names)) == len(group.commands)
    assert group.get_command(None, "list-jobs").name == "list-jobs"
    assert group.get_command(None, "no-such") is None


@pytest.mark.parametrize("argument", ["qurey", "ingset"])
def test_a_mistyped_command_is_told_the_closest(argument, capsys):
    assert hdi.cli.run([argument]) == 2
    assert "Did you mean" in capsys.readouterr().err
