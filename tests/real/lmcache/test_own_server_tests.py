"""LMCache's own tests of workers, their transfer contexts and its server, from its source archive,
on Penstock's server (server_in_place.py). Their assertions are unchanged.

Tests that are not run are listed here, with the reason. LMCache's tests are of three kinds: those
that drive a server over its wire or a module through its handlers run on ours; those that check
calls of LMCache's own classes by mocks do not apply to ours; and those of parts that our server
takes from LMCache unchanged (wire, clients) test LMCache alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from server_workers import CHUNK, Server

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SOURCE = ROOT / "build" / "lmcache-src"
TESTS = SOURCE / "tests/v1/multiprocess"

# On our server: a running one over both wires with server copies, or its module's handlers.
ON_OURS = [
    "test_engine_driven_transfer.py",
    "test_lookup_wait_prefetch.py",
    "test_free_locks.py",
]
# Workers without a server: our package must not change them.
WORKERS_ALONE = [
    "test_async_engine_driven_transfer_context.py",
    "test_engine_driven_async_copy_lifetime.py",
    "test_engine_driven_device_dispatch.py",
    "test_skip_first_n_tokens.py",
]

# Left out of those files, by name. "A mock": it asserts calls to a mock of LMCache's storage,
# session or lookup, or reads LMCache's own attributes.
LEFT_OUT = {
    "test_engine_context_shm_pool_info": "of LMCache's configuration, by its own class",
    "test_server_register_and_find_non_cuda_context_layout": "a mock; and a pool without a name",
    "test_server_register_uses_worker_physical_slots": "a mock of the layout registry",
    "test_server_store_and_retrieve_cpu_chunks": "a mock: the chunk must be in its tensor",
    "test_server_prepare_store_releases_unused_reserved_write_locks": "a mock",
    "test_server_shm_transport_uses_engine_level_config": (
        "a mock that gives two workers the same slot at the same time; ours never does: the second "
        "is told that the chunk can't be stored now"
    ),
    "test_server_engine_driven_reregister_returns_existing_shm_response": (
        "it wants the same name of the pool twice; ours gives each registration a name of its own, "
        "by which the process behind it is known"
    ),
    "test_server_unregister_engine_driven_context_releases_pending_shm_locks": (
        "a mock; and it frees slots that the worker may still write, which ours sets aside"
    ),
    "test_wait_prefetch_status_returns_count_and_consumes_job": "a mock",
    "test_wait_prefetch_status_timeout_returns_none_and_keeps_job": (
        "a mock of a job that is not over; ours looks into memory, and none lasts"
    ),
    "test_server_free_lookup_locks_calls_finish_read_prefetched": "a mock",
    "test_server_free_lookup_locks_sliding_window_skips_unlocked_chunks": "a mock",
    "test_server_free_lookup_locks_sliding_window_releases_locked_suffix": "a mock",
    "test_server_free_lookup_locks_caps_release_at_hit_length": "a mock",
    "test_server_free_lookup_locks_without_result_releases_nothing": "a mock",
    "test_server_free_lookup_locks_consumes_pending_result_first": "a mock",
    "test_server_free_lookup_locks_while_prefetch_running_releases_nothing": "a mock",
    "test_server_free_lookup_locks_no_matching_chunks": "a mock",
    "test_server_free_lookup_locks_honors_the_session_lock_model": "a mock",
    "test_free_locks_request_transport": "the wire, on a fixed port, with a handler of the test's",
}

# Whole files of tests/v1/multiprocess that are not run.
FILES_LEFT_OUT = {
    # LMCache's own classes, with mocks
    "test_worker_liveness.py": "reapers by time, KV events; ours asks the kernel: test_server.py",
    "test_session.py": "LMCache's class of sessions",
    "test_token_hasher.py": "LMCache's hashes; ours are SHA-256 of all tokens so far",
    "test_key_resolver.py": "LMCache's keys",
    "test_affinity_pool.py": "LMCache's threads",
    "test_batched_iteration_with_skip.py": "a helper of LMCache's copies",
    "test_completion_recorder.py": "LMCache's class",
    "test_engine_passthroughs.py": "LMCache's class",
    "test_l1_owner_completion.py": "LMCache's storage",
    "test_lookup_outcome_attribution.py": "LMCache's events",
    "test_num_kv_readers.py": "LMCache's counters of locks; ours are pins",
    "test_query_lookup_hits.py": "LMCache's look-up, by mocks",
    "test_warm_prefetch.py": "LMCache's prefetch from L2; see test_l2_contract.py",
    "test_prefetch_service.py": "the same, over HTTP",
    "test_unified_touch.py": "LMCache's recency lists",
    "test_ipc_memory_reclaim.py": "LMCache's class",
    "test_lmcache_driven_layout_registry.py": "LMCache's class",
    "test_lmcache_driven_missing_registration.py": (
        "a mock; the same answer is in test_server_copies.py"
    ),
    "test_lmcache_driven_transfer_skip.py": "LMCache's class",
    "test_direct_transfer_dispatch.py": "LMCache's kernels",
    # the wire and the clients, which are LMCache's own here too
    "test_mq.py": "ZeroMQ",
    "test_mq_handler_helpers.py": "ZeroMQ",
    "test_grpc_transport.py": "gRPC",
    "test_request_server.py": "both",
    "test_protocols.py": "both",
    "test_transport_factory.py": "both",
    "test_client.py": "clients",
    "test_futures.py": "clients",
    "test_custom_types.py": "messages",
    "test_posix_shm.py": "shared memory of LMCache",
    # programs and parts that our server lacks
    "test_autostart_health.py": "a client's start of `lmcache server`",
    "test_sigterm_cleanup.py": "`lmcache server` itself, on CUDA; ours: test_server_command.py",
    "test_config.py": "options of `lmcache server`",
    "test_ext_server_module.py": "--server-module",
    "test_mp_runtime_plugin_launcher.py": "--runtime-plugin-locations",
    "test_http_api_registry.py": "the HTTP API",
    "test_http_quota_endpoints.py": "the HTTP API",
    "test_http_server.py": "the HTTP API",
    "test_usage_telemetry_server.py": "telemetry",
    "test_p2p_controller.py": "peer to peer",
    "test_raw_block_l2_adapter.py": "an L2 adapter; see test_l2_contract.py",
    "test_compute_mp_checksums.py": "the HTTP API's checksums",
    "test_qstore.py": "queries beside keys and values, experimental",
    "test_blend_matcher.py": "CacheBlend",
    "test_blend_observability.py": "CacheBlend",
    "test_blend_reorder.py": "CacheBlend",
    "test_blend_retrieve.py": "CacheBlend",
    "test_blend_rope.py": "CacheBlend",
    "test_blend_store.py": "CacheBlend",
    "test_cb_fused_geometry.py": "CacheBlend",
    "test_cb_plan_executor_gpu.py": "CacheBlend, CUDA",
    "test_blocked_scale_format.py": "kernels",
    "test_event_ipc_handle_path.py": "CUDA",
    "test_native_state_alias_gpu.py": "CUDA",
    "test_native_state_lookup.py": "recurrent states, several KV groups",
    "test_direct_copy_planner_gpu.py": "CUDA",
    "test_direct_copy_transfer_gpu.py": "CUDA",
}

# Each starts processes that import lmcache, which takes long.
THOROUGH = pytest.mark.skipif(
    os.environ.get("PENSTOCK_TEST_TIER") != "full", reason="in the full tier"
)

pytestmark = pytest.mark.skipif(not SOURCE.exists(), reason="./dev environments brings the source")


def run(files: list[Path], folder: Path) -> str:
    """Run from another folder: the archive's own package has no compiled modules."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "server_in_place", "-c", os.devnull, "--rootdir", str(SOURCE)]
    command += ["--import-mode=importlib", "-rs", *map(str, files)]
    for name in LEFT_OUT:
        command += [f"--deselect={file.relative_to(SOURCE)}::{name}" for file in files
                    if file.is_relative_to(SOURCE)]  # fmt: skip
    paths = [str(HERE), str(ROOT / "tests" / "python"), str(SOURCE)]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths[:2])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


@THOROUGH
@pytest.mark.timeout(600)
def test_a_running_server_over_both_wires(tmp_path: Path) -> None:
    from server_in_place import in_place

    said = run([in_place(TESTS / "test_cache_server.py", tmp_path)], tmp_path)
    assert "18 passed" in said, said


@pytest.mark.timeout(600)
def test_the_handlers_and_the_workers(tmp_path: Path) -> None:
    said = run([TESTS / name for name in ON_OURS + WORKERS_ALONE], tmp_path)
    assert " passed" in said


def test_every_file_is_run_or_left_out_for_a_reason() -> None:
    known = {*ON_OURS, *WORKERS_ALONE, *FILES_LEFT_OUT, "test_cache_server.py"}
    assert {file.name for file in TESTS.glob("test_*.py")} == known


@THOROUGH
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["engine_driven", "lmcache_driven"])
def test_the_bench_of_lmcache_runs_on_ours(mode: str, name: str) -> None:
    """`lmcache bench server`: two ranks store, look up and load."""
    with Server(name, "--capacity", "64MiB", "--chunk-tokens", str(CHUNK)) as server:
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "lmcache"), "bench", "server", "--mode", "cpu",
                "--transfer-mode", mode, "--rpc-url", server.address, "--tp-size", "2",
                "--num-tokens", str(8 * CHUNK), "--block-size", "4", "--num-blocks", "256",
                "--kvcache-shape-spec", "(2,256,4,2,8):float16:2", "--url", "",
                "--end", "3", "--interval", "0",
            ],
            capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        said = done.stdout
        assert said.count("STORE: stored") == 3, said
        assert "store_failed" not in said, said
        assert said.count("RETRIEVE: retrieved") == 3, said
        assert server.end() == 0
