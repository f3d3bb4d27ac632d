"""What a run says of itself: its data, its recipe, and what the model folder keeps of both."""

from typing import Any

from models.datasets import Dataset, Split, schema
from models.datasets.discrete import column_name, warnings_of
from models.flow import Flow
from models.training.options import TrainingOptions
from models.training.report import DataFacts, TrainingReport


def describe_data(data: Dataset, parts: Split, options: TrainingOptions, flow: Flow) -> DataFacts:
    """The facts about the data of a run; the names of the classes where the flow takes them."""
    return DataFacts(
        name=data.name,
        spec=data.spec,
        source=data.source,
        licence=data.licence,
        sha256=data.digest(),
        train_rows=len(parts.train),
        validation_rows=len(parts.validation),
        test_rows=len(parts.test),
        anomalies=0 if data.anomaly is None else int(data.anomaly.sum()),
        validation_fraction=options.validation_fraction,
        test_fraction=options.test_fraction,
        seed=options.seed,
        recipe=data.recipe,
        columns=tuple(schema.to_json(schema.describe(parts.train))),
        class_names=() if flow.context_shape is None else data.label_names,
        discrete=tuple(column_name(data, index) for index in data.discrete),
        warnings=tuple(warnings_of(data)),
    )


def recipe(flow: Flow, options: TrainingOptions, facts: DataFacts) -> dict[str, Any]:
    """What must be the same for a resumed run; more epochs or patience may be given."""
    free = {"epochs", "patience", "save_seconds", "picture_temperature"}
    return {
        "family": flow.family,
        "config": dict(flow.config),
        "options": options.model_dump(mode="json", exclude=free),
        "data": facts.sha256,
    }


def provenance(report: TrainingReport) -> dict[str, Any]:
    """What config.json says under `provenance`: the data, their split and the test figures."""
    facts = report.data
    test = report.test
    integers = {
        "test_log_density_midpoint": test.log_density_midpoint,
        "test_log_likelihood_bound": test.log_likelihood_bound,
        "test_bound_draws": test.bound_draws,
    }
    names = {schema.COLUMNS_KEY: list(facts.columns), schema.CLASSES_KEY: list(facts.class_names)}
    return {
        **{key: value for key, value in names.items() if value},
        "trained_on": facts.name,
        "source": facts.source,
        "licence": facts.licence,
        "data_sha256": facts.sha256,
        "split": {
            "validation_fraction": facts.validation_fraction,
            "test_fraction": facts.test_fraction,
            "seed": facts.seed,
        },
        "test_nats": test.nats,
        "test_bits_per_dim": test.bits_per_dim,
        "test_auroc": test.auroc,
        **{key: value for key, value in integers.items() if value is not None},
    }
