"""The changes of one model: versions are loaded, become the default, and are retired."""

import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from service.errors import ModelRefused, NotReady
from service.repository.calibrations import is_recalibrated, why_not_in_its_place
from service.repository.folders import ModelLocation, stamp
from service.repository.loading import LoadedModel, recalibrate
from service.repository.startup import reason_of
from service.repository.table import ModelTable
from service.repository.version_policy import LiveVersions

_ENDS = "the service is shutting down"

_log = logging.getLogger(__name__)


LoadVersion = Callable[[ModelLocation], Awaitable[LoadedModel]]


class RefusedVersion(NamedTuple):
    """A version that could not be made live, or not be made the default, and why."""

    location: ModelLocation
    error: ModelRefused


class ModelChanges:
    """Brings what is served of a model to what is wanted of it.

        load what is new or has changed ──> choose the default ──> retire what is not wanted

    The default is loaded last and retired last: requests that name no version are answered
    throughout. A version that is refused changes nothing of what is served.

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
        self, name: str, wanted: LiveVersions, load: LoadVersion, *, anew: bool = False
    ) -> list[RefusedVersion]:
        """Make the versions of a model live that are wanted, and no others.

        Args:
            name: of the model.
            wanted: its versions.
            load: loads one.
            anew: whether those are loaded again that have not changed.

        Returns:
            Those that were refused.

        Raises:
            NotReady: the service is shutting down.
        """
        refused = []
        for location in sorted(wanted.locations, key=lambda one: one.version == wanted.default):
            try:
                await self._bring(location, wanted, load, anew=anew)
            except ModelRefused as error:
                refused.append(RefusedVersion(location, error))
        model = self._table.versions(name)
        default = model.choose_default(wanted.versions, wanted.pinned)
        former, new = model.live.get(model.default), wanted.find(default)
        if former is not None and new is not None:
            try:
                self._check_calibrated(new, former, model.live[default])
            except ModelRefused as error:
                refused.append(RefusedVersion(new, error))
                default = model.default
        if model.live:
            self._table.settle(name, wanted.versions, default)
        return refused

    def refuse(self, location: ModelLocation, reason: str) -> ModelRefused:
        """List a version as refused, and give the error that says so."""
        reason = self._show(reason)
        self._table.refuse(location, reason)
        return ModelRefused(reason)

    async def _bring(
        self, location: ModelLocation, wanted: LiveVersions, load: LoadVersion, *, anew: bool
    ) -> None:
        """Serve what lies in the folder of a version.

        Raises:
            ModelRefused: it cannot be loaded.
            NotReady: the service is shutting down.
        """
        loaded = self._table.versions(location.name).live.get(location.version)
        if loaded is not None and not anew:
            if loaded.stamp == stamp(location):
                # What was refused meanwhile lies there no longer.
                self._table.forget_refusal(location.name, location.version)
                return
            if is_recalibrated(loaded.stamp, stamp(location)):
                again = await recalibrate(location, loaded)
                self._check_calibrated(location, loaded, again)
                if not self._is_draining():
                    self._table.serve_on(again)
                return
        try:
            new = await load(location)
        except Exception as error:
            raise self.refuse(location, reason_of(location, error)) from None
        if self._is_draining():
            new.abort(_ENDS)
            raise NotReady(_ENDS)
        model = self._table.versions(location.name)
        former, retired = model.live.get(location.version), None
        if former is None and location.version == wanted.default:
            former = model.live.get(model.default)
            retired = None if model.default in wanted.versions else model.default
        try:
            self._check_calibrated(location, former, new)
        except ModelRefused as error:
            new.abort(error.detail)
            raise
        self._table.serve(new, in_place_of=retired if former is not None else None)

    def _check_calibrated(
        self, location: ModelLocation, former: LoadedModel | None, loaded: LoadedModel
    ) -> None:
        """Refuse a version without calibration in the place of one that has it.

        Raises:
            ModelRefused: saying what to do.
        """
        if former is None or self._allow_uncalibrated:
            return
        fault = loaded.calibration_fault
        reason = why_not_in_its_place(former.served.card, loaded.served.card, fault)
        if reason is not None:
            raise self.refuse(location, reason)
