PYTHON ?= python
SITE ?= build/docs

.PHONY: docs docs-serve

docs:  ## the documentation site, in $(SITE)
	NO_MKDOCS_2_WARNING=true $(PYTHON) -m mkdocs build --strict --site-dir $(SITE)

docs-serve:  ## the site at http://127.0.0.1:8000, built again after each change
	NO_MKDOCS_2_WARNING=true $(PYTHON) -m mkdocs serve
