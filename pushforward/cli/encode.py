"""`pushforward encode`: the operation over files, in this process."""

from pushforward.cli.file_jobs import (
    Columns,
    Context,
    Inputs,
    Instances,
    Json,
    Keep,
    Model,
    NumThreads,
    OnBadRow,
    Output,
    Overwrite,
    Resume,
    make_plan,
    run_plan,
)


def encode(
    model: Model,
    inputs: Inputs,
    *,
    output: Output,
    columns: Columns = None,
    context: Context = None,
    keep: Keep = None,
    on_bad_row: OnBadRow = "null",
    overwrite: Overwrite = False,
    resume: Resume = False,
    instances: Instances = None,
    num_threads: NumThreads = None,
    json: Json = False,
) -> None:
    """Map files of rows to latents, without a server."""
    plan = make_plan(
        "encode",
        model,
        output,
        inputs=tuple(inputs),
        columns=columns,
        context=context,
        keep=keep,
        on_bad_row=on_bad_row,
        overwrite=overwrite,
        resume=resume,
        instances=instances,
        num_threads=num_threads,
    )
    run_plan(plan, as_json=json)
