"""The users file: who is in it may do what their role says, and what is wrong in it is named."""

from __future__ import annotations

import pytest

from orders_pipeline.clients.users import ROLES, UsersError, read_users


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_user_may_do_what_the_role_says_for_one_client_or_as_an_operator_for_all(tmp_path, role):
    path = tmp_path / "users.toml"
    client = "" if role == "operator" else 'client = "shop"\n'
    path.write_text(f'["somebody@shop.example"]\n{client}role = "{role}"\n')
    caller = read_users(path).caller("somebody@shop.example")
    assert caller is not None
    assert caller.scopes == ROLES[role]
    assert (caller.client_code, caller.is_operator) == (("", True) if role == "operator" else ("shop", False))
    assert caller.actor.endswith("/somebody@shop.example")
    assert read_users(path).caller("Somebody@shop.example") is None
    assert read_users(None).caller("somebody@shop.example") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a]\nrole = 'clerk'", "a: user"),
        ("[a]\nrole = 'operator'\nclient = 'shop'", "a: user"),
        ("[a]\nrole = 'king'\nclient = 'shop'", "a: role: this must be 'reader', "),
        ("[a]\nrole = 'clerk'\nclient = 'no such'", "a: client: this must be a client's code"),
        ("[a]\nrole = 'clerk'\nclient = 'shop'\nscopes = []", "a: scopes: this is no setting"),
        ("a = 1", "a: user"),
        ("['']\nrole = 'operator'", "name is not"),
        ("['\u3042']\nrole = 'operator'", "name is not"),
        ("[a", "not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, says):
    path = tmp_path / "users.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(UsersError, match=says):
        read_users(path)
    with pytest.raises(UsersError, match=f"cannot be read: {tmp_path}: Is a directory"):
        read_users(tmp_path)
