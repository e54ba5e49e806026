"""PenstockMPConnector, driven as by vLLM's scheduler and workers: what one engine computed another
finds, bit for bit; nothing half-computed is stored; failures are reported."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import penstock
from penstock.integrations import vllm as package

torch = pytest.importorskip("torch")

CHUNK, BLOCK, HEADS, CONTENT, COUNT = 32, 8, 2, 12, 64
WIDTH = CHUNK // BLOCK


@pytest.fixture(autouse=True, scope="module")
def interface() -> None:
    if importlib.util.find_spec("vllm") is None:
        import vllm_interface

        vllm_interface.install()


def config_of(pool: str, engine_id: str, rank: int = 0, world_size: int = 1, **options: Any) -> Any:
    extra = {"penstock.pool": pool, "penstock.capacity": "8MiB", "penstock.chunk_tokens": CHUNK}
    extra |= {f"penstock.{name}": value for name, value in options.pop("extra", {}).items()}
    return SimpleNamespace(
        kv_transfer_config=SimpleNamespace(
            engine_id=engine_id, kv_role=options.get("role", "kv_both"),
            kv_connector_extra_config=extra, is_kv_producer=True,
        ),
        parallel_config=SimpleNamespace(rank=rank, world_size=world_size),
        model_config=SimpleNamespace(model=options.get("model", "tiny"), revision=None),
        cache_config=SimpleNamespace(cache_dtype="auto"),
    )  # fmt: skip


def cache_config(windows: tuple[int | None, ...] = (None,), block_size: int = BLOCK) -> Any:
    return SimpleNamespace(
        kv_cache_groups=[
            SimpleNamespace(
                layer_names=[f"model.layers.{2 * group + n}.attn" for n in range(2)],
                kv_cache_spec=SimpleNamespace(block_size=block_size, sliding_window=window),
            )
            for group, window in enumerate(windows)
        ]
    )


class Engine:
    """A scheduler and its workers, as a connector sees them."""

    def __init__(self, pool: str, engine_id: str, ranks: int = 1, **options: Any) -> None:
        from penstock.integrations.vllm.connector import KVConnectorRole

        kv = options.pop("kv", None) or cache_config()
        part = options.pop("part", 1)
        connector = package.PenstockMPConnector
        configs = [config_of(pool, engine_id, rank, ranks, **options) for rank in range(ranks)]
        self.scheduler = connector(configs[0], KVConnectorRole.SCHEDULER, kv)
        self.workers = [connector(config, KVConnectorRole.WORKER, kv) for config in configs]
        self.caches = []
        for worker in self.workers:
            shape = (COUNT * part, HEADS, BLOCK // part, CONTENT)
            names = [name for group in kv.kv_cache_groups for name in group.layer_names]
            self.caches.append({name: torch.zeros(shape, dtype=torch.bfloat16) for name in names})
            worker.register_kv_caches(self.caches[-1])
        self.failed: set[int] = set()

    def start(self, request: Any, blocks: Any, computed: int = 0) -> int:
        """The look-up and the allocation; returns the number of tokens from the pool."""
        found, is_async = self.scheduler.get_num_new_matched_tokens(request, computed)
        assert not is_async
        ids = blocks if isinstance(blocks, tuple) else (blocks,)
        given = SimpleNamespace(get_block_ids=lambda: ids)
        self.scheduler.update_state_after_alloc(request, given, found)
        return int(found)

    def step(
        self, request: Any, computed: int, new: int, blocks: Any = None, fill: Any = None,
        resumed: bool = False,
    ) -> None:  # fmt: skip
        """One step of one request: new if it has blocks and is not resumed."""
        ids = None if blocks is None else blocks if isinstance(blocks, tuple) else (blocks,)
        is_new = ids is not None and not resumed and not getattr(request, "was_scheduled", False)
        request.was_scheduled = True
        cached = SimpleNamespace(
            req_ids=[] if is_new else [request.request_id],
            new_block_ids=[] if is_new else [ids],
            num_computed_tokens=[] if is_new else [computed],
            resumed_req_ids={request.request_id} if resumed else set(),
        )
        output = SimpleNamespace(
            num_scheduled_tokens={request.request_id: new},
            scheduled_new_reqs=[
                SimpleNamespace(
                    req_id=request.request_id, block_ids=ids, num_computed_tokens=computed
                )
            ] if is_new else [],
            scheduled_cached_reqs=cached,
        )  # fmt: skip
        told = pickle.loads(pickle.dumps(self.scheduler.build_connector_meta(output)))
        metas = []
        self.failed = set()
        for rank, worker in enumerate(self.workers):
            worker.bind_connector_metadata(told)
            worker.start_load_kv(None)
            if fill is not None:
                fill(rank)
            worker.wait_for_save()
            self.failed |= worker.get_block_ids_with_load_errors()
            metas.append(worker.build_connector_worker_meta())
            worker.clear_connector_metadata()
        merged = metas[0]
        for meta in metas[1:]:
            merged = merged.aggregate(meta) if merged is not None else meta
        self.scheduler.update_connector_output(SimpleNamespace(kv_connector_worker_meta=merged))

    def finish(self, request: Any) -> None:
        assert self.scheduler.request_finished_all_groups(request, ()) == (False, None)
        for worker in self.workers:
            assert worker.get_finished({request.request_id}) == (None, None)

    def compute(self, blocks: list[int], seed: int) -> Callable[[int], None]:
        """Fill those blocks as the forward pass would."""

        def fill(rank: int) -> None:
            torch.manual_seed(100 * seed + rank)
            for cache in self.caches[rank].values():
                cache[blocks] = torch.randn(cache[blocks].shape).to(cache.dtype)

        return fill

    def shutdown(self) -> None:
        self.scheduler.shutdown()
        for worker in self.workers:
            worker.shutdown()


def request_of(request_id: str, tokens: list[int], **fields: Any) -> Any:
    return SimpleNamespace(
        request_id=request_id, all_token_ids=tokens, num_tokens=len(tokens), **fields
    )


@pytest.fixture
def engine(name: str) -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def make(engine_id: str = "one", **options: Any) -> Engine:
        made.append(Engine(name, engine_id, **options))
        return made[-1]

    yield make
    for one in made:
        one.shutdown()


TOKENS = list(range(1, 3 * CHUNK + 6))
BLOCKS = list(range(1, 15))
OTHERS = [40, 39, 21, 22, 60, 3, 2, 1, 17, 55, 56, 57, 58, 59]


def pinned(pool: str) -> int:
    with penstock.Store.attach(pool) as store:
        return store.stats().in_use


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("part", [1, 2], ids=["", "smaller kernel blocks"])
def test_one_engines_chunks_are_found_by_another(
    name: str, engine: Callable[..., Engine], ranks: int, part: int
) -> None:
    first, second = engine("first", ranks=ranks, part=part), engine("second", ranks=ranks)
    request = request_of("a", TOKENS)
    assert first.start(request, BLOCKS) == 0
    rows = [block * part + n for block in BLOCKS for n in range(part)]
    first.step(request, 0, len(TOKENS), BLOCKS, first.compute(rows, 1))
    first.finish(request)
    if part != 1:  # as vLLM gives it to an attention backend with smaller blocks
        second.shutdown()
        second = engine("third", ranks=ranks, part=part)
    assert second.start(request_of("x", [7] * 2 * CHUNK), OTHERS) == 0  # makes the client
    held = pinned(name)
    again = request_of("b", TOKENS)
    assert second.start(again, OTHERS) == 3 * CHUNK
    assert pinned(name) == held + 3 * ranks  # pinned until the workers have it
    second.step(again, 3 * CHUNK, len(TOKENS) - 3 * CHUNK, OTHERS)
    assert second.failed == set()
    assert pinned(name) == held
    second.finish(again)
    for mine, theirs in zip(first.caches, second.caches, strict=True):
        for layer in mine:
            for one, other in zip(BLOCKS[: 3 * WIDTH], OTHERS, strict=False):
                for n in range(part):
                    assert torch.equal(mine[layer][one * part + n], theirs[layer][other * part + n])


def test_the_last_token_is_always_computed(engine: Callable[..., Engine]) -> None:
    one = engine()
    request = request_of("a", TOKENS[: 2 * CHUNK])
    one.start(request, BLOCKS)
    one.step(request, 0, 2 * CHUNK, BLOCKS, one.compute(BLOCKS, 1))
    assert one.start(request_of("b", TOKENS[: 2 * CHUNK]), OTHERS) == CHUNK
    assert one.start(request_of("c", TOKENS[: 2 * CHUNK + 1]), OTHERS) == 2 * CHUNK
    # Tokens that the engine has itself are neither looked up nor counted.
    assert one.start(request_of("d", TOKENS), OTHERS, computed=CHUNK + BLOCK) == CHUNK - BLOCK
    assert one.start(request_of("e", TOKENS), OTHERS, computed=2 * CHUNK) == 0


def test_a_prompt_in_pieces_and_generated_tokens(engine: Callable[..., Engine]) -> None:
    """Each chunk is stored when its last token is computed; speculated tokens do not count."""
    one = engine()
    tokens = TOKENS[: CHUNK + 4]
    request = request_of("a", tokens)
    one.start(request, BLOCKS[:2])
    one.step(request, 0, 16, BLOCKS[:2], one.compute(BLOCKS, 1))
    probe = request_of("p", TOKENS)
    assert one.start(probe, OTHERS) == 0
    one.step(request, 16, len(tokens) - 16, BLOCKS[2:5])
    assert one.start(probe, OTHERS) == CHUNK
    request.all_token_ids = TOKENS[: 2 * CHUNK - 1]
    request.num_tokens = 2 * CHUNK - 1
    one.step(request, 2 * CHUNK - 2, 4, BLOCKS[5:8])  # three of them are speculated
    assert one.start(probe, OTHERS) == CHUNK
    request.all_token_ids = TOKENS[: 2 * CHUNK]
    request.num_tokens = 2 * CHUNK
    one.step(request, 2 * CHUNK - 1, 1)
    assert one.start(probe, OTHERS) == 2 * CHUNK


def test_other_models_salts_adapters_and_images_share_nothing(
    engine: Callable[..., Engine],
) -> None:
    one = engine()
    request = request_of("a", TOKENS, cache_salt="tenant")
    one.start(request, BLOCKS)
    one.step(request, 0, len(TOKENS), BLOCKS, one.compute(BLOCKS, 1))
    image = SimpleNamespace(identifier="hash", mm_position=SimpleNamespace(offset=0, length=9))
    lora = SimpleNamespace(lora_name="x", lora_path="/x", lora_int_id=1)
    for number, (fields, found) in enumerate(
        (
            ({"cache_salt": "tenant"}, 3 * CHUNK),
            ({"cache_salt": "other"}, 0),
            ({}, 0),
            ({"cache_salt": "tenant", "lora_request": lora}, 0),
            ({"cache_salt": "tenant", "mm_features": [image]}, 0),
            ({"cache_salt": "tenant", "prompt_embeds": object()}, 0),
        )
    ):
        assert one.start(request_of(f"r{number}", TOKENS, **fields), OTHERS) == found
    assert engine("other", model="another").start(
        request_of("m", TOKENS, cache_salt="tenant"), OTHERS
    ) == 0  # fmt: skip


def test_blocks_of_another_size_are_not_shared(engine: Callable[..., Engine]) -> None:
    """On a CPU the first half of a block's rows are its keys, not tokens."""
    one, two = engine("one"), engine("two", part=2)
    request = request_of("a", TOKENS)
    one.start(request, BLOCKS)
    one.step(request, 0, len(TOKENS), BLOCKS, one.compute(BLOCKS, 1))
    assert one.start(request_of("b", TOKENS), OTHERS) == 3 * CHUNK
    assert two.start(request_of("b", TOKENS), OTHERS) == 0


def test_a_reset_forgets_chunks_of_other_weights(engine: Callable[..., Engine]) -> None:
    one = engine()
    request = request_of("a", TOKENS)
    one.start(request, BLOCKS)
    one.step(request, 0, len(TOKENS), BLOCKS, one.compute(BLOCKS, 1))
    assert one.start(request_of("b", TOKENS), OTHERS) == 3 * CHUNK
    assert one.scheduler.reset_cache() is True
    assert one.start(request_of("c", TOKENS), OTHERS) == 0
    one.step(request, len(TOKENS), 1)
    assert one.start(request_of("d", TOKENS), OTHERS) == 0, "its blocks are of the old weights"
    one.step(request, 0, len(TOKENS), BLOCKS, one.compute(BLOCKS, 2), resumed=True)
    assert one.start(request_of("e", TOKENS), OTHERS) == 3 * CHUNK


def test_no_request_waits_for_its_chunks_to_be_stored(engine: Callable[..., Engine]) -> None:
    """vLLM's default for kv_both would recompute a preempted request."""
    assert engine().scheduler.requires_kv_delivery is False


def test_a_failed_load_is_reported_and_not_stored(name: str, engine: Callable[..., Engine]) -> None:
    one = engine()
    request = request_of("a", TOKENS)
    one.start(request, BLOCKS)
    one.step(request, 0, len(TOKENS), BLOCKS, one.compute(BLOCKS, 1))
    one.finish(request)
    again = request_of("b", TOKENS)
    assert one.start(again, OTHERS) == 3 * CHUNK
    with penstock.Store.attach(name) as store:  # another client clears the pool in between
        for key in list(store.keys()):
            if isinstance(key, bytes) and key.startswith(b"kv1:"):
                store.delete(key)
    one.step(again, 3 * CHUNK, len(TOKENS) - 3 * CHUNK, OTHERS)
    assert one.failed == set(OTHERS[: 3 * WIDTH])
    assert one.start(request_of("c", TOKENS), BLOCKS) == 0  # the wrong blocks were not stored
    one.step(again, 0, len(TOKENS), OTHERS, one.compute(OTHERS, 2), resumed=True)
    assert one.failed == set()
    assert one.start(request_of("d", TOKENS), BLOCKS) == 3 * CHUNK


def test_a_window_needs_its_last_blocks_only(engine: Callable[..., Engine]) -> None:
    """Two groups; blocks that have left the window are vLLM's null block."""
    kv = cache_config(windows=(None, CHUNK))
    one, two = engine("one", kv=kv), engine("two", kv=kv)
    window = [0] * (2 * WIDTH) + BLOCKS[2 * WIDTH :]
    request = request_of("a", TOKENS)
    one.start(request, (BLOCKS, window))
    one.step(request, 0, len(TOKENS), (BLOCKS, window), one.compute(BLOCKS, 1))
    again = request_of("b", TOKENS)
    others = (OTHERS, [0] * (2 * WIDTH) + OTHERS[2 * WIDTH :])
    assert two.start(again, others) == 3 * CHUNK
    two.step(again, 3 * CHUNK, 5, others)
    assert two.failed == set()
    for number in range(4):
        layer = f"model.layers.{number}.attn"
        first = 0 if number < 2 else 2 * WIDTH
        mine, theirs = one.caches[0][layer], two.caches[0][layer]
        assert torch.equal(mine[BLOCKS[first : 3 * WIDTH]], theirs[OTHERS[first : 3 * WIDTH]])


@pytest.mark.parametrize(("role", "stores", "loads"), [
    ("kv_producer", True, False), ("kv_consumer", False, True),
])  # fmt: skip
def test_roles(engine: Callable[..., Engine], role: str, stores: bool, loads: bool) -> None:
    both, one = engine("both"), engine("one", role=role)
    request = request_of("a", TOKENS)
    one.start(request, BLOCKS)
    one.step(request, 0, len(TOKENS), BLOCKS, one.compute(BLOCKS, 1))
    assert both.start(request_of("b", TOKENS), OTHERS) == (3 * CHUNK if stores else 0)
    other = request_of("c", [one + 500 for one in TOKENS])
    both.start(other, BLOCKS)
    both.step(other, 0, len(TOKENS), BLOCKS, both.compute(BLOCKS, 1))
    found = one.start(request_of("d", other.all_token_ids), OTHERS)
    assert found == (3 * CHUNK if loads else 0)


def test_unsupported_options_are_refused(name: str, engine: Callable[..., Engine]) -> None:
    with pytest.raises(penstock.InvalidArgument, match=r"penstock\.colour"):
        engine(extra={"colour": "red"})
    with pytest.raises(AttributeError, match="Nothing"):
        _ = package.Nothing


def test_finished_and_preempted_requests_hold_nothing(
    name: str, engine: Callable[..., Engine]
) -> None:
    one = engine()
    request = request_of("a", TOKENS)
    one.start(request, BLOCKS)
    one.step(request, 0, len(TOKENS), BLOCKS, one.compute(BLOCKS, 1))
    one.start(request_of("z", TOKENS), OTHERS)  # creates the scheduler's clients
    one.scheduler.request_finished(request_of("z", TOKENS), [])
    held = pinned(name)
    asked = request_of("b", TOKENS)
    for _ in range(3):  # "might be called multiple times"
        assert one.scheduler.get_num_new_matched_tokens(asked, 0) == (3 * CHUNK, False)
    assert pinned(name) == held + 3
    nothing = SimpleNamespace(get_block_ids=lambda: (OTHERS,))
    one.scheduler.update_state_after_alloc(asked, nothing, 0)  # the engine declined it
    assert pinned(name) == held
    assert one.start(asked, OTHERS) == 3 * CHUNK
    one.scheduler.request_finished(asked, [])  # cancelled before it ran
    assert pinned(name) == held
