"""A node: one directory of results, what it is made of, and its name.

The name is `<readable label>-<hash8>`; both come from content alone, never from the name that a configuration
file happens to give, so that two files that mean the same result mean the same directory.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from sft.config.fields import Section
from sft.planning.rules import Rule, rule_of
from sft.runtime.canonical import digest

# Part of every key. Raised only when the meaning of keys changes; never for a new field (see fields.identity).
KEY_SCHEMA = 1


# Made from hundreds of others: their digests stand for them. Nested in each figure, the settings of a thousand runs
# took 100 MB in the archive's config.json, and six seconds to write.
OF_MANY = {"collect_metrics"}


Kind = TypeVar("Kind", bound=Section)


@dataclass
class Node:
    """One result: the rule (by the name of its script) that makes it, its own settings, and what it is made from.

    `config` is all that the script reads; `own` is the part that identifies the result. `gates` must have
    succeeded before this node is made, and are no part of its identity. `joins` is a rule whose process may make
    this node too; `Plan.join` then sets `made_with`, the node whose process does, and that one's `first`.
    `implied` names inputs that follow from the others and from `own`: they say nothing new and are not in the identity.
    `environment` says what to do where installed packages are not those of `pins`, `code_policy` where other code of
    ours made what is there.

    `place`: those wildcards of the rule's directory that are not the node's own id. `results`: the folder that all
    results lie in; of a module with a prefix another one, which is in no name and no identity.
    """

    rule: str
    label: str
    config: dict[str, Any]
    own: dict[str, Any]
    inputs: dict[str, "Node"] = field(default_factory=dict)
    place: dict[str, str] = field(default_factory=dict)
    gates: dict[str, "Node"] = field(default_factory=dict)
    execution: dict[str, Any] = field(default_factory=dict)
    environment: str = "strict"
    code_policy: str = "rerun"
    pins: str = ""  # by default those of the rule's environment
    joins: str = ""
    implied: frozenset[str] = frozenset()
    first: list["Node"] = field(default_factory=list)
    made_with: "Node | None" = None
    results: str = "results"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The pre-image of the key: own settings and, nested, those of everything it is made from.

        Of `OF_MANY` others only the digests are there.
        """
        return self._with({name: n.digest if self.rule in OF_MANY else n.identity for name, n in self._identifying()})

    def whole_identity(self) -> dict[str, Any]:
        """`identity` with everything nested, for people who ask what differs."""
        return self._with({name: node.whole_identity() for name, node in self._identifying()})

    def _with(self, above: dict[str, Any]) -> dict[str, Any]:
        return {"schema": KEY_SCHEMA, "rule": self.rule, **self.own, "from": above}

    def _identifying(self) -> list[tuple[str, "Node"]]:
        return [(name, node) for name, node in self.inputs.items() if name not in self.implied]

    @cached_property
    def digest(self) -> str:
        """sha256 of the identity; inputs enter by their digests, so that long chains stay cheap."""
        return digest(
            {
                "schema": KEY_SCHEMA,
                "rule": self.rule,
                "own": self.own,
                "inputs": {name: node.digest for name, node in self._identifying()},
            }
        )

    @cached_property
    def id(self) -> str:
        """`<label>-<hash8>`."""
        return f"{slug(self.label)}-{self.digest[:8]}"

    @property
    def made_by(self) -> Rule:
        """The rule of the workflow that makes it."""
        return rule_of(self.rule)

    @cached_property
    def path(self) -> str:
        """Where the result lies below the folder of all results."""
        return self.made_by.directory.format_map(defaultdict(lambda: self.id, self.place))

    @property
    def directory(self) -> str:
        """Where the result lies, relative to the working directory."""
        return f"{self.results}/{self.path}"

    @property
    def manifest(self) -> str:
        """The file that says the result is finished."""
        return f"{self.directory}/manifest.json"

    @property
    def log(self) -> str:
        """The file that its script's standard error goes to."""
        return f"{self.directory}/{self.made_by.log_name.format_map(self.place)}"

    def settings(self, kind: type[Kind]) -> Kind:
        """`config` as a typed model of sft.config.nodes, as its script reads it."""
        return kind.read_back(self.config)

    def document(self) -> dict[str, Any]:
        """What `config.json` holds."""
        return {
            "rule": self.rule,
            "id": self.id,
            "config": self.config,
            "identity": self.identity,
            "inputs": {name: node.directory for name, node in self.inputs.items()},
            "environment": {"policy": self.environment, "pins": self.pins or f"envs/{self.made_by.environment}.yaml"},
            **({"code_policy": self.code_policy} if self.code_policy != "rerun" else {}),
            **({"first": [node.directory for node in self.first]} if self.first else {}),
        }


def recorded_node(directory: str, document: dict[str, Any], inputs: dict[str, Node]) -> Node:
    """The node that an archived `config.json` describes; its identity is what was written down, not recomputed."""
    node = Node(document["rule"], document["id"], document["config"], {}, inputs)
    path = directory.removeprefix(f"{node.results}/")
    node.__dict__ |= {"identity": document["identity"], "id": document["id"], "path": path}
    node.__dict__["digest"] = digest(document["identity"])
    return node


def slug(text: str) -> str:
    """`text` as a part of a path: letters, digits, '.', '_' and '-', at most 60 characters."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:60].strip("-.") or "x"
