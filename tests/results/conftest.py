from __future__ import annotations

import pytest
from evidence_of import SOURCES, table_of, trained


@pytest.fixture(params=SOURCES)
def records_of(request, tmp_path):
    """Records that a statement is held against: those of its page, and in `make test-thorough` those of other seeds.

    Called with the page, the losses, the other seeds and the settings of the runs.
    """

    def of(page, losses, seeds, **settings):
        if request.param == "anew":
            return trained(tmp_path, losses, seeds, **settings)
        records = table_of(page, **settings)
        return records[records["loss"].isin(losses) & (records["checkpoint"] == "last")].reset_index(drop=True)

    return of
