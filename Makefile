# `make` lists the targets. Everything happens in .venv (try: .venv-try); nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
TRY := .venv-try
DIST := .venv-dist
OLDEST := .venv-oldest
BIN := $(VENV)/bin
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false
export ORT_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: help setup try demo test test-slow android android-assets android-tools page runtimes languages bench bench-gpu lint format dist wheels test-runtime test-oldest clean
BUNDLE ?= out/demo
PAGE := out/page-$(notdir $(BUNDLE))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## create .venv and install edgeleaf with everything it needs (once)

# constraints.txt pins what CI tests first; constraints-oldest.txt below, the oldest versions that are promised.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "setup: a virtual environment in $(VENV), about two minutes the first time" >&2
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

try: $(TRY)/.installed ## a first look in under a minute: rank sentences by QUERY with the reference student
	@PYTHONPATH=. $(TRY)/bin/python export/try.py $(if $(QUERY),'$(subst ','\'',$(QUERY))')

$(TRY)/.installed: constraints.txt
	@echo "try: numpy and onnxruntime in $(TRY), nothing else" >&2
	@$(PYTHON) -m venv $(TRY)
	@$(TRY)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt numpy onnxruntime
	@touch $@

demo: $(VENV)/.installed ## the main job: from texts on this machine to a certified out/demo/query_encoder.onnx, 5 to 15 minutes
	$(BIN)/edgeleaf run export/recipes/demo.toml -o out/demo

WORKERS ?= auto
test: $(VENV)/.installed ## run the tests on all cores (some need EDGELEAF_DATA, a folder of real texts), but the slow ones
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

test-slow: $(VENV)/.installed ## run the slow tests: all of Unicode, whole builds, frameworks, several processes
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow

test-runtime: ## test the wheel with only numpy and onnxruntime, for one PYTHON=python3.12
	$(PYTHON) .ci/runtime.py

test-oldest: $(OLDEST)/.installed $(VENV)/.installed ## test with the oldest packages that are promised, and with optimum
	EDGELEAF_REQUIRE_OPTIMUM=1 EDGELEAF_SENTENCE_TRANSFORMERS_5_0=$(CURDIR)/$(OLDEST)/5.0 $(OLDEST)/bin/python -m pytest \
	-n $(WORKERS) --dist worksteal tests/bundle tests/search tests/models/test_portable.py \
	tests/models/test_missing_weights.py tests/teachers/test_golden_vectors.py tests/graph/test_export.py \
	tests/graph/test_exporters.py tests/graph/quantization tests/server/test_interface.py tests/pipeline/test_push.py \
	tests/pipeline/test_run.py::test_both_exporters_reach_the_same_certificate \
	tests/pipeline/test_two_routes.py
	EDGELEAF_OLDEST_ENVIRONMENT=$(CURDIR)/$(OLDEST) $(BIN)/python -m pytest \
	tests/pipeline/test_two_routes.py -k older_packages_open_what_these_wrote

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	@echo "oldest: the oldest packages that are promised, in $(OLDEST), about three minutes" >&2
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade pip
	$(OLDEST)/bin/python -m pip install --quiet -c constraints-oldest.txt -e '.[optimum,bench,hub,serve]' openai pytest pytest-xdist hypothesis packaging
	$(OLDEST)/bin/python -m pip install --quiet --no-deps --target $(OLDEST)/5.0 sentence-transformers==5.0.0
	@touch $@

page: $(VENV)/.installed $(PAGE)/index.json web-modules ## serve a page that searches the held-out documents of out/demo in the browser
	node web_demo/serve.mjs $(BUNDLE) $(PAGE)

$(PAGE)/index.json: | $(VENV)/.installed
	@$(BIN)/python -c "import json; rows = map(json.loads, open('$(BUNDLE)/held_out.jsonl', encoding='utf-8')); \
	[print(json.dumps({'_id': str(n), 'text': row['text']})) for n, row in enumerate(rows) if row['kind'] == 'document']" \
	> $(PAGE).jsonl
	$(BIN)/edgeleaf index $(BUNDLE) $(PAGE).jsonl -o $(PAGE) --force

.PHONY: web-modules
web-modules:
	@test web_demo/node_modules/.package-lock.json -nt web_demo/package-lock.json || (cd web_demo && npm ci)

runtimes: $(VENV)/.installed web-modules ## check out/demo (or BUNDLE=...) in Python, Node, Chromium and on an emulated Arm
	$(BIN)/python -m tests.ports $(BUNDLE) out/pack 20
	$(BIN)/python -m edgeleaf.bundle.golden out/pack
	node web_demo/node.mjs out/pack
	node web_demo/browser.mjs out/pack --threads 1
	node web_demo/browser.mjs out/pack --threads 2
	$(BIN)/python -m edgeleaf.emulation armv8.2-dotprod -- -m edgeleaf.bundle.golden out/pack --every 8

languages: languages-tools $(VENV)/.installed ## the examples in Go, Rust, C++, Java, Node and Python, built, run and compared: a table
	$(BIN)/python examples/languages.py export/models/mpnet --strict

languages-tools: DEBIAN := go:golang-go cargo:cargo g++:g++ javac:default-jdk-headless mvn:maven npm:npm
bench bench-gpu: BUNDLE := export/models/mpnet
bench: $(VENV)/.installed ## measure BUNDLE beside sentence-transformers, fastembed, llama.cpp and others: bench/RESULTS.md
	$(BIN)/python -m bench.peers.run $(BUNDLE) -o out/bench
	$(BIN)/python -m bench.peers.report out/bench/results.json -o bench

bench-gpu: $(VENV)/.installed ## the same on an NVIDIA GPU
	$(BIN)/python -m bench.peers.run $(BUNDLE) --gpu -o out/bench-gpu
	$(BIN)/python -m bench.peers.report out/bench-gpu/results.json -o bench/gpu

ANDROID := out/android
FIXTURES := android_demo/out/fixtures
ASSETS := android_demo/app/src/main/assets
android: android-tools android-assets $(ANDROID)/onnxruntime.aar $(FIXTURES)/hits.jsonl ## the Kotlin library and the Android app: built and tested, jar and APK; 10 minutes the first time
	cd android_demo && mvn package
	$(BIN)/python android_demo/tools/apk.py
	EDGELEAF_REQUIRE_ANDROID=1 $(BIN)/python -m pytest tests/android
	$(BIN)/python android_demo/tools/sizes.py

android-assets: $(ASSETS)/index.zip ## what the Android app needs before Android Studio can build it: encoder, documents, certificate

$(ASSETS)/index.zip: $(ANDROID)/index/index.json android_demo/tools/assets.py
	$(BIN)/python android_demo/tools/assets.py $(ANDROID)/bundle $(ANDROID)/index $(ASSETS)

$(ANDROID)/index/index.json: $(ANDROID)/documents.jsonl | $(ANDROID)/bundle/edgeleaf.json
	$(BIN)/edgeleaf index $(ANDROID)/bundle $(ANDROID)/documents.jsonl -o $(ANDROID)/index --pca 256 --force

$(ANDROID)/documents.jsonl: android_demo/tools/documents.py
	$(PYTHON) android_demo/tools/documents.py $@

$(ANDROID)/bundle/edgeleaf.json: | $(VENV)/.installed
	$(BIN)/edgeleaf ship export/models/mpnet --input utf8 --keep-texts -o $(ANDROID)/bundle

$(ANDROID)/onnxruntime.aar: android_demo/tools/android_library.py
	$(PYTHON) android_demo/tools/android_library.py $@
	@touch $@

$(FIXTURES)/hits.jsonl: android_demo/tools/fixtures.py | $(ANDROID)/bundle/edgeleaf.json
	$(BIN)/python android_demo/tools/fixtures.py $(ANDROID)/bundle

android-tools: DEBIAN := javac:default-jdk-headless mvn:maven npm:npm apksigner:apksigner dpkg-deb:dpkg
android-tools languages-tools:
	@for pair in $(DEBIAN); do \
	command -v $${pair%%:*} >/dev/null || set -- "$$@" $${pair#*:}; done; \
	if [ $$# -gt 0 ]; then if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$$@"; \
	else echo "$@: install first: $$*" >&2; exit 1; fi; fi

lint: $(VENV)/.installed ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dist: $(DIST)/.installed ## the wheel and the source archive in dist/, built, checked and listed
	rm -rf dist
	$(DIST)/bin/python -m build --outdir dist
	$(DIST)/bin/python -m twine check --strict dist/*
	$(DIST)/bin/python -m zipfile -l dist/*.whl
	$(DIST)/bin/python -m tarfile -l dist/*.tar.gz

wheels: $(DIST)/.installed ## two wheels in dist/: edgeleaf's own, and the reference student's, made by the first
	rm -f dist/edgeleaf*.whl
	$(DIST)/bin/python -m build --wheel --outdir dist
	$(DIST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/edgeleaf-*.whl
	$(DIST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall dist/edgeleaf-*.whl
	$(DIST)/bin/edgeleaf ship export/models/mpnet --format wheel --keep-texts -o dist
	$(DIST)/bin/python -m twine check --strict dist/*.whl
	for wheel in dist/*.whl; do $(DIST)/bin/python -m zipfile -l $$wheel; done
	@ls -l dist/*.whl

$(DIST)/.installed: constraints.txt
	@echo "dist: build and twine in $(DIST)" >&2
	$(PYTHON) -m venv $(DIST)
	$(DIST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt build twine
	@touch $@

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) $(TRY) $(DIST) $(OLDEST) .venv-runtime-* web_demo/node_modules android_demo/out android_demo/target \
	android_demo/*/target $(ASSETS) out build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
