import errno
import inspect
import re

import pytest

from stac_watch.model import errors
from stac_watch.model.errors import CannotWrite, Exit, StacWatchError, cannot_write

TREE = {
    name: cls for name, cls in vars(errors).items() if inspect.isclass(cls) and issubclass(cls, StacWatchError)
}  # every class of the module, whether or not somebody remembered to draw it


def documented() -> list[tuple[str, int, int]]:
    """(name, depth, exit code) of each line of the tree in the module's docstring, in order."""
    lines = re.findall(r"^    ([│├└─ ]*)(\w+) +(\d+) ", errors.__doc__, flags=re.MULTILINE)
    return [(name, len(indent) // 4, int(code)) for indent, name, code in lines]


def test_the_docstring_draws_exactly_the_classes_that_exist():
    names = [name for name, _, _ in documented()]
    assert sorted(names) == sorted(TREE)


def test_each_exit_code_in_the_docstring_is_the_class_s():
    assert {name: code for name, _, code in documented()} == {name: int(cls.exit_code) for name, cls in TREE.items()}


def test_the_drawn_parents_are_the_real_ones():
    parents: list[str] = []
    for name, depth, _ in documented():
        del parents[depth:]
        assert TREE[name].__base__.__name__ == (parents[-1] if parents else "Exception")
        parents.append(name)


def test_exit_codes_are_the_public_numbers():
    assert {e.name: int(e) for e in Exit} == {
        "OK": 0, "NOT_ALL_WELL": 1, "USAGE": 2, "BAD_INPUT": 65, "SOURCE_NOT_THERE": 66, "UNAVAILABLE": 69, "DEFECT": 70,
        "CANNOT_WRITE": 73, "TEMPORARY": 75, "REFUSED": 77, "CONFIG": 78, "SUPERSEDED": 79, "INTERRUPTED": 130,
        "TERMINATED": 143,
    }  # fmt: skip


def test_an_error_carries_message_and_hint_apart():
    error = StacWatchError("what and where", hint="what next")
    assert (str(error), error.message, error.hint) == ("what and where", "what and where", "what next")
    assert StacWatchError("alone").hint == ""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_so(number):
    error = cannot_write(OSError(number, "x"), "/out")
    assert isinstance(error, CannotWrite)
    assert "no space left" in error.message
    assert "/out" in error.message


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG])
def test_other_refusals_of_the_file_system_name_the_path_and_the_reason(number):
    error = cannot_write(OSError(number, "some reason"), "/out")
    assert isinstance(error, CannotWrite)
    assert error.message == "cannot write /out: some reason"
    assert error.hint


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ECONNRESET, errno.EIO, errno.EINTR])
def test_an_error_that_is_not_about_writing_is_not_taken_for_it(number):
    assert cannot_write(OSError(number, "x"), "/out") is None
