PYTHON ?= python

.PHONY: docs docs-serve

docs:  ## the documentation site, in build/docs
	NO_MKDOCS_2_WARNING=true $(PYTHON) -m mkdocs build --strict

docs-serve:  ## the site at http://127.0.0.1:8000, built again after each change
	NO_MKDOCS_2_WARNING=true $(PYTHON) -m mkdocs serve
