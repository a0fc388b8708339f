"""Label selectors as the Kubernetes API reads them: `a`, `a=b`, `a!=b`, `a in (b,c)`, joined by commas."""

import re

SAYS = {
    "in": lambda label, values, labels: labels.get(label) in values,
    "=": lambda label, values, labels: labels.get(label) in values,
    "!=": lambda label, values, labels: labels.get(label) not in values,
    "exists": lambda label, _, labels: label in labels,
}


def parse(selector):
    """Returns its terms: label, what is said of it, the values that are named."""
    return [_term(text.strip()) for text in re.findall(r"[^,(]+\([^)]*\)|[^,]+", selector)]


def holds(terms, document):
    labels = document["metadata"].get("labels") or {}
    return all(SAYS[says](label, values, labels) for label, says, values in terms)


def _term(text):
    if match := re.fullmatch(r"(\S+) in \((.*)\)", text):
        return match[1], "in", frozenset(match[2].split(","))
    label, says, value = re.fullmatch(r"([^=!]+)(!=|=)?(.*)", text).groups()
    return label, says or "exists", frozenset({value})
