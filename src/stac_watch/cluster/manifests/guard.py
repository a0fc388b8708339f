"""What holds for everybody who has the token: which events the Sensor takes, and what may become a Workflow in our namespace.

The Sensor's filter asks of an event what `stac-watch` asks of each before it sends it (`parse_event`, `illegal_label`): nothing
that a watcher sends is dropped by it, and a test holds the two against each other. What it drops is acknowledged and gone, without
ten minutes of attempts that would hold up the events behind it.

The admission policy judges what arrives, whoever sent it and whatever parser read it: here a Workflow refers to a template and adds
arguments, and nothing else; the Sensor makes only runs of ours, and never changes one; the poller changes one's description, and
nothing else. It binds our namespace alone, so that the
controller's own `templateReferencing: Strict`, which is for every tenant, need not be set.

Sources: Argo Events 1.9.11, pkg/sensors/dependencies/filter.go (scripts read the last of two equal keys, data filters and the
mapping the first); Argo Workflows 4.0.7, docs/workflow-restrictions.md (what Strict lets a Workflow set); Kubernetes 1.30 or later,
ValidatingAdmissionPolicy.
"""

from __future__ import annotations

from stac_watch.cluster.manifests.settings import POLLER, SENSOR_ACCOUNT, Object, Settings, labels, meta_of_cluster
from stac_watch.model.event import DATA_SCHEMA, LATER, MAPPED, MAX_NAME, MAX_TEXT, PRIORITY
from stac_watch.model.identity import FORMER, KEY_DIGITS, NAME_DIGITS
from stac_watch.runs.descriptions import DESCRIPTION
from stac_watch.runs.workflow import GROUP, INSTANCE_LABEL, LABELS, TEMPLATE, mapped

SETTABLE = (
    "activeDeadlineSeconds", "archiveLogs", "arguments", "artifactGC", "entrypoint", "metrics", "podGC", "priority", "shutdown",
    "suspend", "ttlStrategy", "volumeClaimGC", "workflowMetadata", "workflowTemplateRef",
)  # fmt: skip
"""What a Workflow may say beside its template, as under Strict: no image, account, volume, security context or pod patch."""
PARTS = ("spec", "status", "metadata.labels", "metadata.ownerReferences", "metadata.finalizers")
"""Of a Workflow, all that somebody could act by; annotations come beside them."""
_KEYS = "|".join(f"[0-9a-f]{{{digits}}}" for digits in (KEY_DIGITS, *FORMER))
_RUN = f"^gz-[a-z0-9-]{{1,{MAX_NAME - 3}}}$"
_LUA = """\
-- Is it an event of stac-watch? The same is asked of each before it is sent.
local function all(names, holds)
  for _, name in ipairs(names) do if not holds(name) then return false end end
  return true
end
local function matches(value, pattern, most)
  return type(value) == "string" and #value <= most and string.match(value, pattern) ~= nil
end
local function name(value)
  return matches(value, "^[A-Za-z0-9][A-Za-z0-9._-]*$", 128) and not string.find(value, "..", 1, true)
end
local function label(value)
  if value == nil or value == "" then return true end
  if type(value) ~= "string" or #value > 63 then return false end
  return string.match(value, "^[A-Za-z0-9][A-Za-z0-9._-]*$") ~= nil and string.match(value, "[A-Za-z0-9]$") ~= nil
end
local function whole(value, least, most)
  return type(value) == "number" and value >= least and value <= most and value == math.floor(value)
end
local event = event.body
if type(event) ~= "table" or type(event.data) ~= "table" then return false end
local data = event.data
if event.specversion ~= "1.0" or event.dataschema ~= "%(schema)s" then return false end
local function text(most) return function(field)
  return type(data[field]) == "string" and #data[field] <= most
end end
local function text_or_none(field) return data[field] == nil or text(%(most)d)(field) end
local mapped = {
  %(mapped)s,
}
if not all(mapped, text(%(most)d)) then return false end
if not all({%(later)s}, text_or_none) then return false end
if not all({%(labels)s}, function(field) return label(data[field]) end) then return false end
if data.options ~= nil then
  if type(data.options) ~= "table" then return false end
  for field, value in pairs(data.options) do
    if type(field) ~= "string" or type(value) ~= "string" or #value > %(most)d then return false end
  end
end
if not name(data.item_id) or not whole(data.attempt, 1, 999999) then return false end
if not whole(data.priority, %(least)d, %(first)d) then return false end
local digits = ({%(digits)s})[#data.key]
if digits == nil or not matches(data.key, "^[0-9a-f]+$", 64) then return false end
local attempt = string.format("%%d", data.attempt)
local tail = "-" .. string.sub(data.key, 1, digits) .. "-" .. attempt
if event.id ~= data.key .. "-" .. attempt then return false end
if tonumber(string.sub(data.key, 1, 4), 16) %% %(sensors)s ~= %(number)s then return false end -- another Sensor's
return matches(data.run, "^gz%%-[a-z0-9-]+$", %(longest)d) and string.sub(data.run, -#tail) == tail
"""


def event_filter(sensors: int = 1, number: int = 0) -> Object:
    """Returns the filter of one of so many Sensors: names by the mapping's own parser, the rest by a script."""
    return {
        "data": [
            _pattern("body.id", f"^({_KEYS})-[1-9][0-9]{{0,5}}$"),
            _pattern("body.data.key", f"^({_KEYS})$"),
            _pattern("body.data.run", _RUN),
        ],
        "script": script(sensors, number),
    }


def script(sensors: int = 1, number: int = 0) -> str:
    """Returns the script, in the Lua (5.1) that Argo Events runs; it sees the request as `event`."""
    named = {"mapped": MAPPED, "later": LATER, "labels": [key for key in LABELS.values() if key not in ("key", "attempt")]}
    digits = {KEY_DIGITS: NAME_DIGITS, **FORMER}
    return _LUA % {
        **{what: ", ".join(f'"{name}"' for name in names) for what, names in named.items()},
        "digits": ", ".join(f"[{key}] = {name}" for key, name in digits.items()),
        "schema": DATA_SCHEMA,
        "most": MAX_TEXT,
        "least": min(PRIORITY.values()),
        "first": max(PRIORITY.values()),
        "longest": MAX_NAME,
        "sensors": sensors,
        "number": number,
    }


def policy_name(namespace: str) -> str:
    """Returns what the policy of a namespace is called; it belongs to no namespace itself."""
    return f"stac-watch-{namespace}"


def admission(settings: Settings) -> list[Object]:
    """Returns the policy on Workflows, and what binds it to our namespace. Both belong to the cluster."""
    api = "admissionregistration.k8s.io/v1"
    name = policy_name(settings.namespace)
    rule = {"apiGroups": [GROUP], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": ["workflows"]}
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.namespace}}}
    policy = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule], **here},
        "variables": [
            {"name": "new", "expression": "request.operation == 'CREATE'"},
            {"name": "sensor", "expression": _is(SENSOR_ACCOUNT, settings)},
            {"name": "poller", "expression": _is(POLLER, settings)},
            {"name": "notes", "expression": "has(object.metadata.annotations) ? object.metadata.annotations : {}"},
            {"name": "noted", "expression": "has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {}"},
            {"name": "labels", "expression": "has(object.metadata.labels) ? object.metadata.labels : {}"},
            {"name": "key", "expression": "'stac-watch/key' in variables.labels ? variables.labels['stac-watch/key'] : ''"},
            {
                "name": "attempt",
                "expression": "'stac-watch/attempt' in variables.labels ? variables.labels['stac-watch/attempt'] : ''",
            },
        ],
        "validations": [_validation(*each) for each in [*_anybody(), *_sensor(), _poller()]],
    }
    binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": here}
    return [
        {"apiVersion": api, "kind": kind, "metadata": {**meta_of_cluster("stac-watch", settings), "name": name}, "spec": spec}
        for kind, spec in (("ValidatingAdmissionPolicy", policy), ("ValidatingAdmissionPolicyBinding", binding))
    ]


def _anybody() -> list[tuple[str, str]]:
    """Returns what holds for whoever makes or changes a Workflow here, the controller included: (expression, message)."""
    only = f"'workflowTemplateRef' in object.spec && object.spec.all(field, field in {list(SETTABLE)})"
    unchanged = "!variables.new && object.spec == oldObject.spec"
    return [(f"{unchanged} || ({only})", f"a Workflow here names a workflowTemplateRef and sets nothing but {', '.join(SETTABLE)}")]


def _sensor() -> list[tuple[str, str]]:
    """Returns what holds for the Sensor, which does what whoever has the token wants: (expression, message)."""
    known = [*labels(TEMPLATE), *LABELS, "events.argoproj.io/sensor", "events.argoproj.io/trigger", INSTANCE_LABEL]
    names = [parameter.name for parameter in mapped()]
    digits = " : ".join(f"size(variables.key) == {key} ? {name}" for key, name in FORMER.items())
    tail = f"'-' + variables.key.substring(0, {digits} : {NAME_DIGITS}) + '-' + variables.attempt"
    only = [
        "object.spec.all(field, field in ['arguments', 'priority', 'workflowTemplateRef'])",
        f"object.spec.workflowTemplateRef == {{'name': '{TEMPLATE}'}}",
        f"object.spec.priority >= {min(PRIORITY.values())} && object.spec.priority <= {max(PRIORITY.values())}",
    ]
    named = [
        f"variables.key.matches('^({_KEYS})$') && variables.attempt.matches('^[1-9][0-9]{{0,5}}$')",
        f"object.metadata.name.matches('{_RUN}') && object.metadata.name.endsWith({tail})",
    ]
    argument = [
        f"p.name in {names} && 'value' in p && type(p.value) == string && size(p.value) <= {MAX_TEXT}",
        "(p.name != 'key' || p.value == variables.key) && (p.name != 'attempt' || p.value == variables.attempt)",
    ]
    bare = [
        f"variables.labels.all(label, label in {known}) && !('status' in object)",
        *(f"!has(object.metadata.{field})" for field in ("annotations", "ownerReferences", "finalizers")),
    ]
    rules = {
        f"an event becomes a run of {TEMPLATE} and nothing else": only,
        "an event's run, key and attempt do not belong together": named,
        "an event's arguments are not those of an event, or too long": [
            f"object.spec.arguments.parameters.all(p, {' && '.join(argument)})"
        ],
        "an event sets labels of ours and no other metadata": bare,
    }
    making = [(f"!variables.sensor || !variables.new || ({' && '.join(each)})", message) for message, each in rules.items()]
    same = f"!variables.sensor || variables.new || ({' && '.join(map(_same, (*PARTS, 'metadata.annotations')))})"
    return [*making, (same, "an event changes no run that is there")]


def _poller() -> tuple[str, str]:
    """Returns what holds for the poller, which reads what catalogs and products say: (expression, message)."""
    kept = "variables.{0}.all(n, n == '{2}' || (n in variables.{1} && variables.{1}[n] == variables.{0}[n]))".format
    notes = f"{kept('notes', 'noted', DESCRIPTION)} && {kept('noted', 'notes', DESCRIPTION)}"
    same = f"!variables.poller || (!variables.new && {' && '.join(map(_same, PARTS))} && {notes})"
    return same, "the watcher changes nothing of a run but its description"


def _is(account: str, settings: Settings) -> str:
    return f"request.userInfo.username == 'system:serviceaccount:{settings.namespace}:{account}'"


def _same(path: str) -> str:
    """Returns an expression: a part of the object is as it was, or was never there."""
    old, new = f"oldObject.{path}", f"object.{path}"
    return f"(has({old}) ? has({new}) && {new} == {old} : !has({new}))"


def _pattern(path: str, pattern: str) -> Object:
    return {"path": path, "type": "string", "value": [pattern]}


def _validation(expression: str, message: str) -> Object:
    return {"expression": expression, "message": message}
