"""Words by which a Polars SQL expression gives away that its value depends on more than the row it stands for.

Whether an expression works row by row decides whether the same records give the same output wherever a batch is cut. Polars itself can say
it only where it need not know the types of columns: not of ``a / b``, ``a % b`` and ``a IN (...)``; and of ``a + sum(b)`` it says yes.
"""

from __future__ import annotations

from typing import Final

IMPURE: Final = frozenset(
    "now random rand uuid current_date current_time current_timestamp localtime localtimestamp today getdate sysdate".split()  # noqa: SIM905
)
"""Functions whose answer depends on when or how often it is asked; some may be written without brackets."""

ACROSS_ROWS: Final = frozenset(
    """
    array_agg avg corr count covar covar_pop covar_samp first first_value lag last last_value lead max mean median min
    quantile_cont quantile_disc quantile rank dense_rank row_number std stddev stddev_samp stdev string_agg sum unnest var
    var_samp variance explode group_concat any_value listagg
    """.split()  # noqa: SIM905 - a list of names reads better as a paragraph
)
"""Functions that look at more than one row."""

BEYOND_ONE_ROW: Final = frozenset({"over", "select", "exists"})
"""Words of window functions and sub-queries."""
