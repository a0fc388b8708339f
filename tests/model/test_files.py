"""A file that is replaced at once, or stays as it was."""

import pytest

from stac_watch.model.files import replace_file


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("content", ["text ü", b"\x00bytes"])
def test_the_content_is_there_and_nothing_beside_it(tmp_path, content, sync):
    path = tmp_path / "a.json"
    path.write_text("old")
    replace_file(path, content, sync=sync)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_reader_of_the_old_file_keeps_it_and_the_next_one_has_the_new(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with path.open() as reader:
        replace_file(path, "new")
        assert (reader.read(), path.read_text()) == ("old", "new")


def test_what_fails_leaves_the_old_content_and_no_rest(tmp_path):
    path = tmp_path / "a.json"
    path.mkdir()
    with pytest.raises(IsADirectoryError):  # a file cannot take a folder's place
        replace_file(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "nowhere" / "a.json", "new")
