"""What the string under each field of a model says, for the pages and files that are written from models."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise

from pydantic import BaseModel


def said_of(model: type[BaseModel]) -> dict[str, str]:
    """Returns what the string under each field of a model says.

    Read here and not by pydantic (`use_attribute_docstrings`): it would parse the source at each start of `stac-watch`.
    """
    said = dict(pair for base in model.__bases__ if issubclass(base, BaseModel) for pair in said_of(base).items())
    if model is BaseModel:
        return said
    [written] = ast.parse(inspect.getsource(model)).body
    for field, text in pairwise(written.body if isinstance(written, ast.ClassDef) else []):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                said[name] = inspect.cleandoc(words)
    return said
