"""The changes of one model: versions are loaded, become the default, and are retired."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from service.errors import ModelRefused, NotReady
from service.repository.calibrations import is_recalibrated, why_not_in_its_place
from service.repository.folders import ModelLocation, stamp
from service.repository.loading import LoadedModel, recalibrate
from service.repository.startup import reason_of
from service.repository.table import ModelTable
from service.repository.version_policy import LiveVersions

_ENDS = "the service is shutting down"
_NOT_SERVED = "this version is not served"

LoadVersion = Callable[[ModelLocation], Awaitable[LoadedModel]]


class RefusedVersion(NamedTuple):
    """A version that could not be made live, or not be made the default, and why."""

    location: ModelLocation
    error: ModelRefused


class Change(NamedTuple):
    """What became of a change.

    refused: the versions that could not be made live, or not be made the default.
    is_made: whether it was made with what could be loaded; else no version was made live, promoted
        or retired.
    """

    refused: list[RefusedVersion]
    is_made: bool


class ModelChanges:
    """Brings what is served of a model to what is wanted of it.

        load what is new or has changed ──> serve what is new, choose the default, retire: one step
                       └──> refused ──> none of that

    A live version whose files have changed is replaced once they are loaded; where they are
    refused, it is served on as it was.

    Args:
        table: what is served.
        is_draining: whether the service is shutting down.
        show: what a reason is like for clients.
        allow_uncalibrated: whether a version without calibration may replace one that has it.
    """

    def __init__(
        self,
        table: ModelTable,
        *,
        is_draining: Callable[[], bool],
        show: Callable[[str], str],
        allow_uncalibrated: bool,
    ) -> None:
        self._table = table
        self._is_draining = is_draining
        self._show = show
        self._allow_uncalibrated = allow_uncalibrated

    async def make(
        self,
        name: str,
        wanted: LiveVersions,
        load: LoadVersion,
        *,
        by_name: bool = False,
        anew: bool = False,
    ) -> Change:
        """Make the versions of a model live that are wanted, and no others.

        All of them or none, but for two cases that only its folder can ask for: each version stands
        for itself where all are wanted, and where none is live yet.

        Args:
            name: of the model.
            wanted: its versions.
            load: loads one.
            by_name: whether a client asks for it, and not the folder.
            anew: whether those are loaded again that have not changed, and all must be good; else
                it does no harm that new files of a live version are refused, unless it is the one
                that a client wants as the default.

        Raises:
            NotReady: the service is shutting down.
        """
        refused: list[RefusedVersion] = []
        new: dict[str, LoadedModel] = {}
        try:
            for location in wanted.locations:
                try:
                    loaded = await self._bring(location, load, anew=anew)
                except ModelRefused as error:
                    refused.append(RefusedVersion(location, error))
                else:
                    if loaded is not None:
                        new[location.version] = loaded
            live = self._table.versions(name).live
            default, fault = self._choose_default(name, wanted, new)
            is_made = not fault and all(one.location.version in live for one in refused)
            if by_name:
                must_be_good = wanted.versions if anew else (wanted.default,)
                is_made &= all(one.location.version not in must_be_good for one in refused)
            else:
                is_made |= wanted.each_alone or not live
            if is_made:
                self._settle(name, wanted, new, default)
                new.clear()
                if fault:  # it is live, and may be so from now on
                    self._table.refuse(fault.location, fault.error.detail)
            elif not by_name:
                self._table.keep_refusals(name, wanted.versions)
        finally:
            for loaded in new.values():
                loaded.abort(_NOT_SERVED)
        return Change([*refused, fault] if fault else refused, is_made)

    def refuse(self, location: ModelLocation, reason: str) -> ModelRefused:
        """List a version as refused, and give the error that says so."""
        reason = self._show(reason)
        self._table.refuse(location, reason)
        return ModelRefused(reason)

    def _choose_default(
        self, name: str, wanted: LiveVersions, new: Mapping[str, LoadedModel]
    ) -> tuple[str, RefusedVersion | None]:
        """Choose the version that answers requests without one.

        Returns:
            It, and the one that is not it for want of a calibration.
        """
        model = self._table.versions(name)
        known = {**model.live, **new}
        default = model.choose_default(known, wanted.versions, wanted.pinned)
        former, location = model.live.get(model.default), wanted.find(default)
        if former is not None and location is not None:
            try:
                self._check_calibrated(location, former, known[default])
            except ModelRefused as error:
                return model.default, RefusedVersion(location, error)
        return default, None

    def _settle(
        self, name: str, wanted: LiveVersions, new: Mapping[str, LoadedModel], default: str
    ) -> None:
        """Serve what was loaded, and retire what is not wanted: nobody asks in between."""
        former = self._table.versions(name).default
        for version, loaded in new.items():
            takes_over = version == default and former not in wanted.versions
            self._table.serve(loaded, in_place_of=former if takes_over else None)
        self._table.settle(name, wanted.versions, default)

    async def _bring(
        self, location: ModelLocation, load: LoadVersion, *, anew: bool
    ) -> LoadedModel | None:
        """Load a version that is not live; replace one that is, if its files have changed.

        Returns:
            What was loaded and is not served yet, if anything.

        Raises:
            ModelRefused: it cannot be loaded.
            NotReady: the service is shutting down.
        """
        loaded = self._table.versions(location.name).live.get(location.version)
        if loaded is not None and not anew:
            if loaded.stamp == stamp(location):
                # What was refused meanwhile lies there no longer.
                self._table.forget_refusal(location.name, location.version)
                return None
            if is_recalibrated(loaded.stamp, stamp(location)):
                again = await recalibrate(location, loaded)
                self._check_calibrated(location, loaded, again)
                if not self._is_draining():
                    self._table.serve_on(again)
                return None
        try:
            new = await load(location)
        except Exception as error:
            raise self.refuse(location, reason_of(location, error)) from None
        if self._is_draining():
            new.abort(_ENDS)
            raise NotReady(_ENDS)
        former = self._table.versions(location.name).live.get(location.version)
        if former is None:
            return new
        try:
            self._check_calibrated(location, former, new)
        except ModelRefused as error:
            new.abort(error.detail)
            raise
        self._table.serve(new)
        return None

    def _check_calibrated(
        self, location: ModelLocation, former: LoadedModel, loaded: LoadedModel
    ) -> None:
        """Refuse a version without calibration in the place of one that has it.

        Raises:
            ModelRefused: saying what to do.
        """
        if self._allow_uncalibrated:
            return
        fault = loaded.calibration_fault
        reason = why_not_in_its_place(former.served.card, loaded.served.card, fault)
        if reason is not None:
            raise self.refuse(location, reason)
