"""joblib's backend: `import upcall.joblib`, and then `joblib.parallel_config(backend="upcall")`.

Workers are fresh interpreters, as loky's are (a fork would inherit half of a program's OpenMP), and stay for the next
`Parallel`. Calls go through cloudpickle, arrays through shared memory. A worker that dies costs its own batch of calls,
which `on_death="retry"` runs again: `joblib.parallel_config(backend="upcall", on_death="retry")`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from joblib import register_parallel_backend
from joblib.parallel import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend

from .executor import Executor

__all__ = ["UpcallBackend"]

_executors: dict[tuple[Any, ...], Executor] = {}
_guard = threading.Lock()


def _executor(n_jobs: int, env: dict[str, str], options: dict[str, Any]) -> Executor:
    """The executor of these options, made at its first use."""
    key = (n_jobs, tuple(sorted(env.items())), tuple(sorted(options.items())))
    with _guard:
        if key not in _executors:
            made = Executor(n_jobs, mp_context="spawn", cloudpickle=True, **options)
            made._env = env
            _executors[key] = made
        return _executors[key]


class UpcallBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """What `joblib.Parallel` calls. Options of `parallel_config`: those of `Executor`, but workers and how they start."""

    supports_retrieve_callback = True
    supports_return_generator = True
    supports_timeout = True
    supports_inner_max_num_threads = True
    _workers: Executor | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many workers; negative numbers count from the number of CPUs, as everywhere in joblib."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        if n_jobs < 0:
            from joblib import cpu_count

            return max(int(cpu_count()) + 1 + n_jobs, 1)
        return n_jobs

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **options: Any
    ) -> int:
        """Before the calls of one `Parallel`."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        own = {**self.backend_kwargs, **options}
        # What `Parallel` hands to every backend, for memory maps that are not needed here.
        for name in ("context", "context_id", "temp_folder", "max_nbytes", "mmap_mode", "verbose"):
            own.pop(name, None)
        self._workers = _executor(n_jobs, self._prepare_worker_env(n_jobs=n_jobs), own)
        self.parallel = parallel
        return n_jobs

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None) -> Any:
        """One batch of calls."""
        assert self._workers is not None
        future = self._workers.submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit

    def retrieve_result_callback(self, future: Any) -> Any:
        """A batch's results."""
        return future.result()

    def terminate(self) -> None:
        """After the calls: the workers stay for the next ones."""
        self._workers = None
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """A call has failed: what is under way is ended."""
        with _guard:
            for key in [key for key, executor in _executors.items() if executor is self._workers]:
                _executors.pop(key)._end()
        self._workers = None
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)


register_parallel_backend("upcall", UpcallBackend)
