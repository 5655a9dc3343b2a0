"""The data, space and pricing that all jobs of a search share, opened once per process."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import Self

from nasseg import plugins
from nasseg.cost.latency_table import LatencyTable
from nasseg.data import Split, open_dataset
from nasseg.data.decoded import decoded
from nasseg.data.in_memory import InMemory
from nasseg.data.resized import Resized
from nasseg.graph import Architecture
from nasseg.jobs.pricing import Pricing
from nasseg.network import Network
from nasseg.planning.config import Fingerprints, Plan, SearchConfig
from nasseg.planning.fitting import Fitting
from nasseg.planning.job import Candidate, Outcome, Status
from nasseg.planning.objective import Objective
from nasseg.planning.options import Aim, SearchOptions
from nasseg.planning.samplers.base import Region
from nasseg.run_folder import LATENCY_TABLE_FILE, prepared_model, trained_model
from nasseg.space import Choice
from nasseg.train.fit import Stopped, seeded_network
from nasseg.train.metrics import Metrics
from nasseg.train.provenance import DataInfo, Provenance, versions
from nasseg.train.weights.loading import Pretrained

T = TypeVar("T")

DECODED_SHARE = 0.05
"""Of the free disk, at most, for a split's decoded images; plans leave a tenth for both (`USABLE_DISK_SHARE`)."""
KEPT_ARCHITECTURES = 256
"""Architectures kept in memory; a candidate is priced, trained and written within this many others."""


class Problem:
    """The data, space, limits and costs of a search.

    The space counts as named by the user; `SearchConfig.load` checks that it does not come from a file alone.

    Raises `ValueError` for data, a space or a latency table that cannot be opened.
    """

    def __init__(self, options: SearchOptions) -> None:
        self.options = options
        self.device = options.torch_device
        self.space = plugins.space(options.space, named_by_user=options.space)
        self.dataset = open_dataset(options.data)
        self.train: Split = self.dataset.split(options.train_split)
        self.val: Split = self.dataset.split(options.val_split)
        self.classes = len(self.dataset.classes)
        self._build = lru_cache(KEPT_ARCHITECTURES)(self._built)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels, of a typical image of the validation split."""
        return self.val.typical_size()

    @cached_property
    def pricing(self) -> Pricing:
        """The pricing of networks, by the latency table if there is one."""
        table = self.options.latency
        return Pricing(self.size, self.options.limits, None if table is None else LatencyTable.load(table))

    def price_by(self, table: Path) -> None:
        """Predict latency by the table in this file from now on."""
        if self.options.latency == str(table):
            return
        self.options = self.options.model_copy(update={"latency": str(table)})
        for priced in ("pricing", "objective"):
            self.__dict__.pop(priced, None)

    @cached_property
    def fitting(self) -> Fitting[Any]:
        """The way that points are brought to the limits: scaled, except for a front, whose points differ in cost."""
        scales = self.aim == "score"
        return Fitting(self.space, lambda choice: self.candidate(choice).constraints, scales)

    @cached_property
    def region(self) -> Region:
        """The region in which samplers propose."""

        def params(choice: Choice) -> float:
            return float(self.pricing.costs(self.architecture(choice)).params or 0)

        return Region.of(self.fitting, params)

    @property
    def aim(self) -> Aim:
        """One score, or a front where a space has networks of all sizes and no limit says which are wanted."""
        if self.options.objective is not None:
            return self.options.objective
        return "pareto" if self.space.dial is not None and not self.options.limits.given else "score"

    @cached_property
    def objective(self) -> Objective:
        """The objective, with costs relative to the target, else to the first reference's."""
        pricing, options = self.pricing, self.options
        costs = pricing.costs(self.architecture(next(iter(self.references.values()))))
        return Objective(
            aim=self.aim,
            unit="MAdds" if pricing.table is None else "ms",
            weight=options.cost_weight,
            reference_cost=options.limits.latency_ms or costs.latency_ms or costs.madds,
        )

    @property
    def sampler(self) -> str:
        """The name of the sampler, unless given the one that did best in searches of this kind."""
        options = self.options
        if options.sampler is not None:
            return options.sampler
        if self.aim == "pareto":
            return "nsga2"
        if options.strategy == "gradient":
            return "neighbourhood"
        return "gp" if self.fitting.by_dial and options.limits.given else "tpe"

    @cached_property
    def references(self) -> dict[str, Choice]:
        """The handcrafted points by label, first the one to beat, scaled to the limits as all points are."""
        return self.fitting.references()

    @cached_property
    def pretrained(self) -> Pretrained | None:
        """The pretrained backbones, if any were given; raises `ValueError` if they cannot be read."""
        source = self.options.weights
        return None if source is None else Pretrained(source)

    @property
    def fingerprints(self) -> Fingerprints:
        """The fingerprints of the splits and of the pretrained weights, as they are now."""
        weights = None if self.pretrained is None else self.pretrained.fingerprint
        return Fingerprints(train=self.train.fingerprint, val=self.val.fingerprint, weights=weights)

    def differing(self, known: Fingerprints | None) -> str | None:
        """Name a split, or the weights, that is not as the search `known` by its fingerprints began with."""
        now, options = self.fingerprints, self.options
        named = {
            "train": f"split {options.train_split!r} of {options.data}",
            "val": f"split {options.val_split!r} of {options.data}",
            "weights": f"--weights {options.weights}",
        }
        differing = (what for name, what in named.items() if known and getattr(known, name) != getattr(now, name))
        return next(differing, None)

    def require_unchanged(self, known: Fingerprints | None) -> None:
        """Raise `ValueError` if a split or the weights are not those that a search began with."""
        if (what := self.differing(known)) is not None:
            raise ValueError(
                f"{what} has changed since the search began, or is a copy whose files have other times; restore it "
                "as it was, or begin a new search, as scores could not be compared"
            )

    @property
    def inherits(self) -> bool:
        """Whether trials start from the weights of earlier ones.

        Pretrained weights take their place, as a backbone that earlier trials trained further would favour later ones.
        Heads on stored features are cheap to train, and that proxy was validated without inheritance.
        """
        return self.options.inherit and self.options.weights is None and self.space.shared_stage is None

    def starting_network(self, architecture: Architecture, seed: int) -> Network:
        """Build a whole network as its training begins: pretrained as far as weights were given, else random."""
        network = seeded_network(architecture, seed)
        if self.pretrained is not None:
            self.pretrained.load_into(network)
        return network

    def architecture(self, choice: Choice) -> Architecture:
        """Build the network of a choice, which names its space and point."""
        return self._build(choice)

    def candidate(self, choice: Choice) -> Candidate:
        """Make the candidate of a choice, with its distance from the limits."""
        architecture = self.architecture(choice)
        return Candidate(
            key=architecture.key,
            choice=choice.model_dump(mode="json"),
            constraints=self.pricing.constraints(architecture),
        )

    def _built(self, choice: Choice) -> Architecture:
        architecture = self.space.architecture(choice, self.classes)
        return architecture.replace(space=self.options.space, choice=choice.model_dump(mode="json"))


class Context:
    """A problem with the plan of its search and the run folder. Once `stop` is set, jobs end at their next step."""

    def __init__(self, problem: Problem, plan: Plan, folder: Path, fingerprints: Fingerprints | None = None) -> None:
        self.problem, self.plan, self.folder = problem, plan, folder
        self._fingerprints = fingerprints
        self.stop = threading.Event()
        self.train, self.val = (
            InMemory(Resized(decoded(split, most_of_free_disk=DECODED_SHARE), plan.image_scale))
            for split in (problem.train, problem.val)
        )

    @classmethod
    def open(cls, config: SearchConfig, folder: Path) -> Self:
        """Open the data, the space and the run folder's latency table in a process that has nothing open yet."""
        table = folder / LATENCY_TABLE_FILE
        options = config.model_copy(update={"latency": str(table) if table.exists() else None})
        return cls(Problem(options), config.plan, folder, config.fingerprints)

    @property
    def prepared_model(self) -> Path:
        """Where the model of the first reference is, or will be, that gives the features which candidates may share."""
        key = self.problem.candidate(next(iter(self.problem.references.values()))).key
        return (
            trained_model(self.folder, key, 0) if self.plan.prepare_steps is None else prepared_model(self.folder, key)
        )

    def require_unchanged(self) -> None:
        """Raise `ValueError` if the data or the weights are not those that the search began with."""
        self.problem.require_unchanged(self._fingerprints)

    def until_stopped(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches of a job; raises `Stopped` between two of them once `stop` is set."""
        for batch in batches:
            self.raise_if_stopped()
            yield batch

    def raise_if_stopped(self) -> None:
        """Raise `Stopped` once `stop` is set."""
        if self.stop.is_set():
            raise Stopped

    @cached_property
    def provenance(self) -> Provenance:
        """The origin of the search's architectures and models, without scores."""
        problem, options = self.problem, self.problem.options
        data = DataInfo.of(problem.dataset, options.train_split, options.val_split, problem.size)
        return Provenance(
            data=data, weights=options.weights, budget=str(options.budget), seed=options.seed, versions=versions()
        )

    def architecture(self, candidate: Candidate) -> Architecture:
        """Build the network of a candidate."""
        return self.problem.architecture(self.problem.space.parse(candidate.choice))

    def outcome(
        self,
        candidate: Candidate,
        status: Status,
        step: int,
        metrics: Metrics | None = None,
        message: str | None = None,
    ) -> Outcome:
        """Make the outcome of a run that reached `step`, with the candidate's costs; a failure has a `message`."""
        return Outcome(
            key=candidate.key,
            status=status,
            step=step,
            miou=metrics.miou if metrics else None,
            class_iou=metrics.class_iou if metrics else (),
            message=message,
            **self.problem.pricing.costs(self.architecture(candidate)).model_dump(),
        )
