"""What the page can do with which kind of model: a test of it, or what the page says in its place.

Whoever adds a feature adds its row here, a cell for each kind; `test_features.py` holds that every
cell is there, that every test is, and that the page says what is written here.
"""

from dataclasses import dataclass

KINDS = ("2-D", "table", "image", "class-conditional", "continuous")
# What a test of a kind opens: one of these, of the zoo or the test's own.
MODELS = {
    "2-D": ("moons",),
    "table": ("magic",),
    "image": ("digits-glow",),
    "class-conditional": ("digits-classes", "glyphs", "counts", "halves"),
    "continuous": ("pinwheel", "digits-ffjord"),
}


@dataclass(frozen=True)
class Unfit:
    """A kind of model has no such feature, and the page says why.

    model: of the zoo, of that kind.
    view: where it is said: in the title of its tab where the whole view does not fit, else in it.
    says: a part of what is said.
    """

    model: str
    view: str
    says: str


# A test is FILE::FUNCTION, in this folder.
Cell = str | Unfit


def row(feature: str, *cells: Cell) -> dict[tuple[str, str], Cell]:
    """Give the cells of a feature: one for each kind, in the order of `KINDS`, or one for all."""
    if len(cells) == 1:
        cells *= len(KINDS)
    return {(feature, kind): cell for kind, cell in zip(KINDS, cells, strict=True)}


NO_MAP = Unfit("digits-glow", "density", "a picture has too many pixels")
CONTINUOUS_MAP = "test_density.py::test_a_continuous_model_is_seen_coarse_first"
CLASS_MAP = "test_density_odd.py::test_whole_numbers_and_classes_of_a_table"

FEATURES: dict[tuple[str, str], Cell] = {
    **row(
        "density map",
        "test_density.py::test_colours_of_the_map_are_the_models_log_p",
        "test_density.py::test_other_features_stay_as_in_the_row",
        NO_MAP,
        CLASS_MAP,
        CONTINUOUS_MAP,
    ),
    **row(
        "drag a point",
        "test_density.py::test_a_point_and_its_latent_follow_each_other",
        "test_density.py::test_a_table_shows_its_latents_as_bars",
        NO_MAP,
        CLASS_MAP,
        CONTINUOUS_MAP,
    ),
    **row(
        "the request",
        "test_request.py::test_each_program_gets_what_the_page_got",
        "test_request.py::test_programs_ask_other_kinds_of_model",
        "test_request.py::test_each_program_gets_what_the_page_got",
        "test_request.py::test_programs_ask_other_kinds_of_model",
        "test_request.py::test_programs_ask_other_kinds_of_model",
    ),
    **row("live", "test_live.py::test_what_is_asked_of_the_server_is_seen"),
    **row(
        "round trip",
        "test_trust.py::test_rows_come_back_and_the_ledger_adds_up",
        "test_trust.py::test_rows_come_back_and_the_ledger_adds_up",
        "test_trust.py::test_rows_come_back_and_the_ledger_adds_up",
        "test_trust.py::test_rows_of_a_class_come_back",
        "test_trust.py::test_rows_come_back_and_the_ledger_adds_up",
    ),
    **row(
        "trust card",
        "test_trust.py::test_the_card_says_what_the_server_states",
    ),
    **row(
        "temperature",
        "test_samples.py::test_points_move_smoothly_with_the_temperature",
        "test_samples.py::test_rows_of_a_table_are_points_and_numbers",
        "test_samples.py::test_pictures_look_as_the_server_draws_them",
        "test_samples.py::test_samples_and_their_noise_are_of_the_chosen_class",
        "test_samples.py::test_a_continuous_flow_is_seen_in_time",
    ),
    **row(
        "noise to data",
        "test_samples.py::test_points_of_the_plane_come_from_noise",
        "test_samples.py::test_rows_of_a_table_are_points_and_numbers",
        "test_samples.py::test_pictures_look_as_the_server_draws_them",
        "test_samples.py::test_samples_and_their_noise_are_of_the_chosen_class",
        "test_samples.py::test_a_continuous_flow_is_seen_in_time",
    ),
    **row(
        "film strip between two rows",
        "test_interpolate.py::test_the_path_over_samples_of_the_plane",
        "test_interpolate.py::test_a_line_for_each_feature_of_a_table",
        "test_interpolate.py::test_the_film_is_the_decoded_slerp",
        "test_interpolate_classes.py::test_a_film_within_a_class",
        "test_interpolate.py::test_the_path_over_samples_of_the_plane",
    ),
    **row(
        "an end of one's own",
        "test_interpolate.py::test_rows_as_json_and_what_is_wrong_with_them",
        "test_interpolate.py::test_rows_as_json_and_what_is_wrong_with_them",
        "test_interpolate.py::test_a_picture_file_becomes_the_row_that_it_shows",
        "test_interpolate_classes.py::test_a_latent_in_every_class",
        "test_interpolate.py::test_the_keyboard_alone_is_enough",
    ),
    **row(
        "from class to class",
        Unfit("moons", "interpolate", "trained without classes"),
        Unfit("magic", "interpolate", "trained without classes"),
        Unfit("digits-glow", "interpolate", "trained without classes"),
        "test_interpolate_classes.py::test_a_direction_from_class_to_class",
        Unfit("pinwheel", "interpolate", "trained without classes"),
    ),
    **row(
        "scores of a file",
        "test_score.py::test_the_keyboard_suffices",
        "test_score.py::test_a_dropped_csv_is_judged_as_the_api_judges_it",
        "test_score.py::test_pictures_have_their_heat_maps",
        "test_keys_and_policy.py::test_rows_are_judged_by_the_scores_of_their_class",
        "test_score.py::test_a_slow_model_is_given_up",
    ),
    **row(
        "why a row is odd",
        "test_score.py::test_a_row_far_away_is_explained",
        "test_score.py::test_a_dropped_csv_is_judged_as_the_api_judges_it",
        "test_score.py::test_pictures_have_their_heat_maps",
        "test_keys_and_policy.py::test_rows_are_judged_by_the_scores_of_their_class",
        "test_score.py::test_a_row_far_away_is_explained",
    ),
}
