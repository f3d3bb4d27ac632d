"""The file of keys: what it may say, and what is said of a wrong one."""

from hashlib import sha256
from pathlib import Path

import pytest

from service.keys import KeyRule, read_key_file, unnamed_rules

KEY, OTHER = "0123456789abcdef", "fedcba9876543210"
KEY_OF_DIGITS = "1234567890123456"
DIGEST, OTHER_DIGEST = (sha256(key.encode()).digest() for key in (KEY, OTHER))


def read(tmp_path: Path, text: str) -> list[KeyRule]:
    file = tmp_path / "keys.toml"
    file.write_text(text, "utf-8")
    return read_key_file(file)


def test_all_that_a_key_may_have(tmp_path: Path) -> None:
    text = f"""
        [keys.nightly]
        key = "{KEY}"
        requests_per_second = 0.5
        rows_per_second = 10000
        rows_in_flight = 4096
        weight = 2
        [keys."web.2"]
        sha256 = "{OTHER_DIGEST.hex().upper()}"
    """
    nightly, web = read(tmp_path, text)
    assert nightly == KeyRule("nightly", (DIGEST,), 0.5, 10000.0, 4096, 2.0)
    assert nightly.limits == ["requests_per_second", "rows_per_second", "rows_in_flight"]
    assert web == KeyRule("web.2", (OTHER_DIGEST,))
    assert web.limits == []


def test_a_key_has_two_while_one_is_replaced(tmp_path: Path) -> None:
    (rule,) = read(tmp_path, f'[keys.a]\nkey = ["{KEY}", "{OTHER}"]')
    assert rule.digests == (DIGEST, OTHER_DIGEST)


def test_keys_without_a_name_are_numbered(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# old\n{KEY}\n\n{OTHER}\n")
    assert [rule.name for rule in read_key_file(file)] == ["file-1", "file-2"]
    assert [rule.name for rule in unnamed_rules([KEY, OTHER])] == ["key-1", "key-2"]


_A = f'[keys.a]\nkey = "{KEY}"\n'
WRONG = {
    "nothing": ("", r"^expected tables \[keys.NAME\]"),
    "another_table": (f"{_A}[other]\n", r"^expected tables \[keys.NAME\]"),
    "no_table": (f'[keys]\na = "{KEY}"', r"^\[keys.a\]: expected a table$"),
    "no_toml": (f'[keys.a]\nkey = "{KEY}"\nweight = {KEY}', r"^not TOML \(at line 3, column 1"),
    "an_open_end": (f'[keys.a]\nkey = "{KEY}', r"^not TOML \(at "),
    "no_key": ("[keys.a]\nweight = 2", r"^\[keys.a\]: expected one of key and sha256$"),
    "both": (f'{_A}sha256 = "{DIGEST.hex()}"', r"^\[keys.a\]: expected one of key and sha256$"),
    "a_short_key": ('[keys.a]\nkey = "hunter2"', r"^\[keys.a\]: key: expected keys of 16"),
    "a_number": ("[keys.a]\nkey = 7", r"^\[keys.a\]: key: expected text, or a list of texts"),
    "a_key_of_digits": (f"[keys.a]\nkey = [{KEY_OF_DIGITS}]", r"^\[keys.a\]: key: expected text"),
    "many_brackets": (f"a = {'[' * 10_000}", r"^not TOML"),
    "a_short_digest": ('[keys.a]\nsha256 = "ab"', r"^\[keys.a\]: sha256: expected 64 hex"),
    "a_field": (f"{_A}rate = 1", r"^\[keys.a\]: rate: there is none of this name, expected key, "),
    "a_key_as_field": (f"{_A}{KEY} = 1", r"^\[keys.a\]: a field: there is none of this name"),
    "below_0": (
        f"{_A}requests_per_second = -1",
        r"^\[keys.a\]: requests_per_second: expected a number above 0, got -1$",
    ),
    "infinite": (f"{_A}rows_per_second = inf", r"rows_per_second: expected a number above 0"),
    "text": (f'{_A}rows_per_second = "{KEY}"', r"rows_per_second: expected a number above 0$"),
    "half_a_row": (f"{_A}rows_in_flight = 1.5", r"rows_in_flight: expected a whole number above 0"),
    "a_bool": (f"{_A}rows_in_flight = true", r"rows_in_flight: expected a whole number above 0"),
    "weight": (f"{_A}weight = 1001", r"weight: expected a number above 0, at most 1000, got 1001$"),
    "twice": (f'{_A}[keys.b]\nkey = "{KEY}"', r"^\[keys.b\]: the same key stands in \[keys.a\]"),
    "twice_by_digest": (f'{_A}[keys.b]\nsha256 = "{DIGEST.hex()}"', r"^\[keys.b\]: the same key"),
    "reserved": (f'[keys.other]\nkey = "{KEY}"', r"^\[keys.other\]: the name stands for keys"),
    "numbered": (f'[keys.key-1]\nkey = "{KEY}"', r"^\[keys.key-1\]: the name stands for keys"),
    "a_space": (f'[keys."a b"]\nkey = "{KEY}"', r"^a name in \[keys.NAME\]: expected 1 to 48"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_and_no_key_repeated(tmp_path: Path, case: str) -> None:
    text, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, text)
    assert KEY not in str(caught.value)
    assert KEY_OF_DIGITS not in str(caught.value)
    assert "hunter2" not in str(caught.value)
