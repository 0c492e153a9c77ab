# make demo: the whole pipeline on the made world; make test: the tests. Both install first.
PYTHON ?= python3
CORES ?= 2
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test test-slow test-slurm test-s3 test-browser web docs pictures faults kills chaos rehearsal lint bench comparison real lock clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	touch $@

demo: install
	$(BIN)/snakemake --cores $(CORES)
	@echo "The report is results/report.html"

test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-slow: install
	$(BIN)/python -m pytest -m slow

# Explore page and report in Chromium, which must be on the path; axe-core comes from npm.
test-browser: install
	npm ci --prefix web --no-audit --no-fund
	$(BIN)/python -m pytest -m browser

# The pictures of the README, from the demo's results.
pictures: demo
	$(BIN)/python docs/make_pictures.py

# The documentation, as a site in docs/_build/html.
docs: install
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

# The libraries of the explore page, bundled anew from web/package-lock.json.
web:
	npm ci --prefix web --no-audit --no-fund
	npm run build --prefix web

# A Slurm of two nodes on this machine: root, and Debian's slurmctld slurmd slurm-client munge.
test-slurm: install
	$(BIN)/python -m pytest -m slurm tests/slurm -s

# All data in a bucket of moto's server on loopback.
test-s3: install
	$(BIN)/python -m pytest -m s3 tests/test_object_storage.py -s

# Retrieval from a failing server, 20 seeds; and 50 kill -9 at random moments.
faults: install
	$(BIN)/python -m pytest -m "" tests/test_faults.py -k failing_server

kills: install
	$(BIN)/python -m pytest -m "" tests/test_faults.py -k killed

# Damage, kills and faults at random, and every value right in the end.
ROUNDS ?= 20
chaos: install
	$(BIN)/python tests/chaos.py --rounds $(ROUNDS)

# A quarter of a million locations from sampling to the store, without the network: 15 GB for a while.
rehearsal: install
	$(BIN)/python benchmarks/rehearsal.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

bench: install
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

# SeCo, MoCo, one-season views, calendar seasons and no training on the made world, three seeds each: some 25 minutes.
comparison: install
	$(BIN)/snakemake report --cores $(CORES) --configfile config.yaml recipes/made-world-comparison.yaml
	$(BIN)/python benchmarks/comparison.py

real: install
	$(BIN)/python -m pytest -m real tests/real -s

clean:
	rm -rf results resources .snakemake

# Resolve requirements.in anew; torch is pinned without a local suffix, so that pip takes the CPU
# build where it is set up for it and the CUDA build elsewhere.
lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --requirement requirements.in
	(echo "# Versions that were installed and tested together (make lock writes this file from requirements.in)."; \
	  .venv-lock/bin/python -m pip freeze | sed 's/+cpu//') > requirements.lock
	rm -rf .venv-lock
