# Everything one does with a checkout.  `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help demo test qemu libreswan check static format sim bench bench-strangers lock clean
bin := .venv/bin

help: ## show this list
	@printf 'hushwire: IPsec for hosts that were never introduced\n\n'
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 24

demo: ready-demo ## the story end to end on this machine: two hosts that know only each other's names
	@$(bin)/hushwire lab demo

test: ready-test ## every test: fast, then in network namespaces, then in a User-Mode Linux kernel
	@tools/test.sh fast lab uml

qemu: ready-test ## what User-Mode Linux cannot show of the kernel plane, in the distribution's own kernel: some minutes, needs virtme-ng
	@tools/in-the-kernel.sh

libreswan: ready-test ## all that is tried with libreswan, rekeys while packets flow included: two minutes, on a quiet machine
	$(bin)/python -m hushwire.lab.uml --timeout 500 -- $(bin)/python -m pytest -q -p no:cacheprovider tests/interop/kernel_libreswan.py

check: static ## what to run before a commit: format, lint, types, layers, file sizes, fast tests
	@tools/test.sh fast

static: ready-test ## the part of check that runs no hushwire code
	$(bin)/ruff format --check src tests tools
	$(bin)/ruff check src tests tools
	$(bin)/mypy --strict
	$(bin)/python -m pytest -q tests/test_layers.py tests/test_house.py

format: ready-test ## let ruff lay out the code and fix what it can
	$(bin)/ruff format src tests tools
	$(bin)/ruff check --fix src tests tools

sim: ready-demo ## a thousand simulated internets, each from its own seed
	@$(bin)/hushwire sim --seeds 1000

bench: ready-test ## hushwire and a peer in turn: handshakes, ESP, look-ups, and what a program waits
	@$(bin)/hushwire lab bench handshake
	@$(bin)/hushwire lab bench esp
	@$(bin)/hushwire lab bench lookups
	@$(bin)/hushwire lab bench latency

bench-strangers: ready-test ## what remembered peers, trusted keys and peers at work cost as they grow: three minutes
	@$(bin)/hushwire lab bench strangers

lock: ready-test ## write requirements.lock anew from pyproject.toml
	$(bin)/python tools/lock.py

clean: ## delete what was built, the virtual environment too
	rm -rf build .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: ready-demo ready-test
ready-demo ready-test:
	@tools/bootstrap.sh $(@:ready-%=%)
