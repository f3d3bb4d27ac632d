"""What the importer knows of one code base: its keys, its hyper-parameters, its conversion."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from torch import Tensor

from models.importers.likelihood import Reported
from models.importers.weights import Weights

Count = Annotated[int, Field(gt=0)]
Step = Mapping[str, Any]
Fragment = dict[str, Tensor]


class SourceConfig(BaseModel):
    """Hyper-parameters under the names that the source gives them: strict types, no others.

    It notes which of them are read, so a conversion reads each where it takes effect and nowhere
    else: one that was given and is never read would have been ignored.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, protected_namespaces=())

    _read: set[str] = PrivateAttr(default_factory=set)

    def __getattribute__(self, name: str) -> Any:
        if name in type(self).model_fields:
            self._read.add(name)
        return super().__getattribute__(name)

    @property
    def read(self) -> frozenset[str]:
        """The hyper-parameters that were read until now."""
        return frozenset(self._read)


@dataclass(frozen=True, slots=True)
class Inferred:
    """A hyper-parameter read off a checkpoint.

    Attributes:
        firm: the weights leave no choice, so another value given by the user is an error; a
            value that is only the source's habit gives way.
    """

    value: Any
    reason: str
    firm: bool = True


@dataclass(frozen=True, slots=True)
class Shown:
    """Values that the keys leave open for an argument that a conversion does without."""

    fitting: tuple[Any, ...]
    reason: str


@dataclass(slots=True)
class Inference:
    """What the shapes of a checkpoint say, and what they cannot say.

    Attributes:
        found: values by name.
        asked: for what is not in a checkpoint, the values that would fit.
        shown: further arguments of the source's constructors: they need not be given, and where
            they are, they are compared with the keys.
        idle: arguments that every constructor call has, and that another one switches off here.
    """

    found: dict[str, Inferred] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    shown: dict[str, Shown] = field(default_factory=dict)
    idle: dict[str, str] = field(default_factory=dict)

    def know(self, name: str, value: Any, reason: str) -> None:
        """Note a value that the weights fix."""
        self.found[name] = Inferred(value, reason)

    def suppose(self, name: str, value: Any, reason: str) -> None:
        """Note a value that the source has unless told otherwise, and that no weight shows."""
        self.found[name] = Inferred(value, reason, firm=False)

    def ask(self, name: str, fitting: str) -> None:
        """Note that a value must be given, and which would fit."""
        self.asked[name] = fitting

    def show(self, name: str, *fitting: Any, reason: str) -> None:
        """Note which values of an argument the keys leave open."""
        self.shown[name] = Shown(fitting, reason)

    def mark_idle(self, name: str, reason: str) -> None:
        """Note that an argument has no effect, whatever it is, because another one is off."""
        self.idle[name] = reason


@dataclass(frozen=True, slots=True)
class Conversion:
    """A checkpoint as one of our families.

    Attributes:
        family, config: for `models.build`, without `preprocessing`.
        layers: for every transform behind the preprocessing, in order, its part of the state dict
            (keys as in the transform's own state dict), in float64 or int64.
        embedding: the state dict of `context_embedding`, where the configuration has one.
        inputs: preprocessing steps that are part of the source's model, acting on its input x.
        pixels: steps from data as users have them to x; none where the source has no preprocessing
            of its own, as for tabular data.
        data: what x is, in words.
        reported: the source's own number.
        feature_names: of the columns of x, where the source knows them.
    """

    family: str
    config: Mapping[str, Any]
    layers: list[Fragment]
    reported: Reported
    embedding: Fragment = field(default_factory=dict)
    inputs: tuple[Step, ...] = ()
    pixels: tuple[Step, ...] = ()
    data: str = "the inputs of the source"
    feature_names: tuple[str, ...] = ()


def _as_given(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    return settings


def _as_stored(key: str) -> str:
    return key


@dataclass(frozen=True, slots=True)
class Source:
    """One code base, or one architecture of it.

    Attributes:
        name: as its checkpoints' `config.json` gives it.
        short_names: what users may write instead.
        signature: patterns of keys; each must match some key of a checkpoint of this source.
        config: its hyper-parameters.
        infer: reads them off the weights.
        convert: makes one of our families of config and weights. Takes every key, or sets it aside.
        training_only: hyper-parameters of its training scripts that do not change the function.
        unfold: turns nested settings, as the source's own files have them, into flat ones.
        claims: of a source built on another: patterns of keys by which it is told from that one
            where no source is named.
        plain_key: a key as `infer` and `convert` know it.
        builders: likewise, values of `model` or `builder` in the hyper-parameters that only this
            source has.
        since: the first version whose layout this is, where an earlier one had another.
        renamed: names of `unfold` by those that users give: messages have the latter.
    """

    name: str
    short_names: tuple[str, ...]
    signature: tuple[str, ...]
    config: type[SourceConfig]
    infer: Callable[[Weights], Inference]
    convert: Callable[[Any, Weights], Conversion]
    training_only: frozenset[str] = frozenset()
    unfold: Callable[[Mapping[str, Any]], Mapping[str, Any]] = _as_given
    claims: tuple[str, ...] = ()
    plain_key: Callable[[str], str] = _as_stored
    builders: frozenset[str] = frozenset()
    since: tuple[int, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    def knows(self, keys: Iterable[str]) -> bool:
        """Whether these are the keys of a checkpoint of this source."""
        return _all_match(self.signature, keys)

    def is_claimed(self, keys: Iterable[str], settings: Mapping[str, Any]) -> bool:
        """Whether these keys, or what is given, are told from the source that this is built on."""
        named = {str(settings.get(name, "")) for name in ("model", "builder")}
        return bool(named & self.builders) or _all_match(self.claims, keys)

    def goes_by(self, name: str) -> bool:
        """Whether a user's word means this source, alone or with others."""
        word = name.strip().lower()
        own = self.name.lower()
        repository, *_ = own.split(" (")
        return word in {own, repository, *repository.split("/"), *self.short_names}


def _all_match(patterns: Iterable[str], keys: Iterable[str]) -> bool:
    keys = list(keys)
    return all(any(re.match(pattern, key) for key in keys) for pattern in patterns)


def prefixed(prefix: str, fragment: Mapping[str, Tensor]) -> Fragment:
    """Put a prefix in front of every key."""
    return {f"{prefix}{key}": value for key, value in fragment.items()}


def numbered(fragments: Iterable[Mapping[str, Tensor]], start: int = 0) -> Fragment:
    """Join fragments as the state of a list of modules: "0.key", "1.key", ..."""
    joined: Fragment = {}
    for index, fragment in enumerate(fragments, start):
        joined |= prefixed(f"{index}.", fragment)
    return joined


def plain(value: Any) -> Any:
    """A value as JSON holds it: tuples become lists."""
    return json.loads(json.dumps(value))
