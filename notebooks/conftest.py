"""How nbval compares outputs with a new run: all but images and progress."""


def pytest_collection_modifyitems(items):
    """Leave out stderr: it holds times, and warnings are caught at stamping."""
    notebooks = {
        item.parent for item in items if hasattr(item.parent, "skip_compare")
    }
    for notebook in notebooks:
        notebook.skip_compare = (*notebook.skip_compare, "stderr")
