// penstock._core.TieredStore: a Store is handed over, keys are asked of both tiers, and what waits
// to be written is waited for. What asks a server lets the GIL go meanwhile, and answers signals.
#include "tiered_store.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <exception>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "errors.hpp"
#include "remote/redis_connection.hpp"
#include "state.hpp"
#include "store_view.hpp"
#include "wait.hpp"

namespace penstock::py {
namespace {

// The one of `all` that bears the name.
template <typename Choice>
Choice parse_choice(nb::handle given, const char* what, std::initializer_list<Choice> all) {
    const std::string name = parse_text(given, what);
    std::string sentence = std::string(what) + " is '" + name + "': give one of";
    for (const Choice known : all) {
        if (name == to_string(known)) {
            return known;
        }
        sentence.append(" '").append(to_string(known)).append("'");
    }
    raise_error(ErrorCode::InvalidArgument, sentence);
}

TierPolicy parse_policy(nb::handle policy) {
    return parse_choice(policy, "policy",
                        {TierPolicy::WriteBack, TierPolicy::WriteThrough, TierPolicy::ReadOnly});
}

WhenFull parse_when_full(nb::handle when_full) {
    return parse_choice(when_full, "when_full", {WhenFull::Drop, WhenFull::Wait});
}

// The store's own handle, in the hands of a tiered one; if that can't be, it is as before.
std::shared_ptr<TieredStore> take_over(PyStore& first, const TieredOptions& options) {
    const std::shared_ptr<Store> handle = first.lend();
    std::shared_ptr<TieredStore> tiered;
    try {
        const WithoutGil without_gil;  // it tries the server
        tiered = std::make_shared<TieredStore>(std::move(*handle), options);
    } catch (...) {
        first.give_back(handle);
        throw;
    }
    first.use({tiered, &tiered->first()});
    return tiered;
}

void create(PyTieredStore* place, nb::object store, const std::vector<std::string>& urls,
            nb::handle cluster, nb::handle prefix, nb::handle policy, nb::handle connect_timeout,
            nb::handle request_timeout, nb::handle retry_first, nb::handle retry_most,
            nb::handle max_inflight, nb::handle when_full, nb::handle full_timeout,
            nb::handle writers, nb::handle part, nb::handle ttl, nb::handle delete_corrupt) {
    TieredOptions options;
    options.urls = urls;
    options.cluster = parse_flag(cluster, "cluster");
    options.prefix = parse_text(prefix, "prefix");
    options.policy = parse_policy(policy);
    options.connect_timeout = parse_seconds(connect_timeout, "connect_timeout");
    options.request_timeout = parse_seconds(request_timeout, "request_timeout");
    options.retry_first = parse_seconds(retry_first, "retry_first");
    options.retry_most = parse_seconds(retry_most, "retry_most");
    options.max_inflight_bytes = parse_bytes(max_inflight, "max_inflight");
    options.when_full = parse_when_full(when_full);
    options.full_timeout = parse_seconds(full_timeout, "full_timeout");
    options.writers = parse_small(writers, "writers");
    options.part_bytes = parse_bytes(part, "part");
    if (!ttl.is_none()) {
        options.ttl = std::chrono::ceil<std::chrono::milliseconds>(parse_seconds(ttl, "ttl"));
    }
    options.delete_corrupt = parse_flag(delete_corrupt, "delete_corrupt");
    std::shared_ptr<TieredStore> tiered = take_over(nb::cast<PyStore&>(store), options);
    new (place) PyTieredStore(std::move(store), std::move(tiered));
}

}  // namespace

PyTieredStore::PyTieredStore(nb::object first, std::shared_ptr<TieredStore> tiered)
    : StoreObjects(nb::cast<PyStore&>(first).codec, nb::cast<PyStore&>(first).name,
                   nb::cast<PyStore&>(first).instance),
      first_(std::move(first)), tiered_(std::move(tiered)) {}

PyTieredStore::~PyTieredStore() {
    if (tiered_ != nullptr && !is_foreign()) {
        tiered_->finish(Deadline::now());
        nb::cast<PyStore&>(first_).leave();
    }
}

std::shared_ptr<TieredStore> PyTieredStore::live() const {
    if (tiered_ == nullptr) {
        raise_error(ErrorCode::Closed,
                    "the tiered store '" + name + "' was closed by this process");
    }
    if (is_foreign()) {
        raise_error(ErrorCode::WrongProcess, "the tiered store '" + name +
                                                 "' belongs to the parent of this process: attach "
                                                 "to the store and make one here");
    }
    return tiered_;
}

namespace {

using Kind = FetchResult::Kind;

std::string sentence_of(const nb::python_error& error) {
    // Not error.what(), which is a traceback.
    const nb::object text = nb::steal(PyObject_Str(error.value().ptr()));
    const char* const sentence = text.is_valid() ? PyUnicode_AsUTF8(text.ptr()) : nullptr;
    if (sentence == nullptr) {
        PyErr_Clear();
        return {};
    }
    return sentence;
}

// Whether a Python value can be made of it, before others see it.
FetchResult check_fetched(const FetchedValue& value, Codec codec) {
    if (value.format == Format::Pickle && codec != Codec::Pickle) {
        return {Kind::Incompatible,
                "it is a pickle, which is only read where that was asked for: attach with "
                "codec='pickle' if you trust who put it, and the server"};
    }
    try {
        check_object(value.format, value.bytes, value.meta, codec);
    } catch (const nb::python_error& error) {
        // It may be this process that lacks something, or this thread: stack (TooLarge).
        const bool is_ours = error.matches(error_class("Incompatible")) ||
                             error.matches(error_class("TooLarge")) ||
                             error.matches(PyExc_MemoryError) || error.matches(PyExc_ImportError);
        return {is_ours ? Kind::Incompatible : Kind::Corrupt, sentence_of(error)};
    } catch (const std::exception& error) {
        return {Kind::Corrupt, error.what()};
    }
    return {};
}

}  // namespace

// `ask(live, waiting)`, which may wait for a server.
template <typename Ask>
auto PyTieredStore::ask(Ask&& ask) const {
    const std::shared_ptr<TieredStore> own = live();
    Waiting waiting(Deadline::never());
    auto outcome = ask(*own, waiting);
    waiting.finish(Status::ok());
    return outcome;
}

Result<StoreRoom> PyTieredStore::reserve(std::string_view key, std::uint64_t nbytes,
                                         const ReserveOptions& options) {
    const std::shared_ptr<TieredStore> own = live();
    const WithoutGil without_gil;
    Result<TieredReservation> staged = own->reserve(key, nbytes, options);
    if (!staged) {
        return staged.status();
    }
    return StoreRoom(*std::move(staged));
}

Result<StoreObject> PyTieredStore::find(std::string_view key) {
    // What the first tier has costs what it does without a second: the GIL stays, too.
    Result<StoreObject> found = live()->first().get(key);
    if (found || found.code() != ErrorCode::NotFound) {
        return found;
    }
    found = ask([&](TieredStore& own, Waiting& waiting) {
        return own.fetch(key, waiting.wait(), [&](const FetchedValue& value) -> FetchResult {
            if (WithoutGil::is_left_behind()) {
                return {Kind::Incompatible, "the interpreter ends"};
            }
            return waiting.with_gil([&] { return check_fetched(value, codec); });
        });
    });
    if (found.code() == ErrorCode::Cancelled) {
        live();  // raises Closed, if that is why
    }
    return found;
}

bool PyTieredStore::contains(std::string_view key) {
    return live()->first().contains(key) || ask([&](TieredStore& own, Waiting& waiting) {
               return own.contains(key, waiting.wait());
           });
}

Status PyTieredStore::remove(std::string_view key) {
    return ask([&](TieredStore& own, Waiting& waiting) { return own.remove(key, waiting.wait()); });
}

void PyTieredStore::owe(std::uint64_t dropped, std::uint64_t dropped_bytes) noexcept {
    owed_.dropped += dropped;
    owed_.dropped_bytes += dropped_bytes;
}

Unwritten PyTieredStore::complete(Unwritten report) noexcept {
    const Unwritten owed = std::exchange(owed_, {});
    report.dropped += owed.dropped;
    report.dropped_bytes += owed.dropped_bytes;
    return report;
}

Unwritten PyTieredStore::flush(Deadline deadline) {
    const std::shared_ptr<TieredStore> own = live();
    Waiting waiting(deadline);
    const Unwritten report = own->flush(waiting.wait());
    waiting.reacquire();
    if (waiting.has_raised()) {
        owe(report.dropped, report.dropped_bytes);
    }
    waiting.finish(Status::ok());
    return complete(report);
}

Unwritten PyTieredStore::close(Deadline deadline) {
    if (tiered_ == nullptr || is_foreign()) {
        return {};
    }
    const std::shared_ptr<TieredStore> own = std::move(tiered_);
    Waiting waiting(deadline);
    const Unwritten report = own->finish(waiting.wait());
    waiting.reacquire();
    nb::cast<PyStore&>(first_).leave();
    waiting.finish(Status::ok());
    return complete(report);
}

void bind_tiered_store(nb::module_& module) {
    nb::class_<PyTieredStore, StoreObjects>(
        module, "TieredStore", nb::is_weak_referenceable(),
        "A store and its second tier; penstock.TieredStore is its face.")
        .def("__init__", &create, nb::arg("store"), nb::arg("urls"), nb::kw_only(),
             nb::arg("cluster").none(), nb::arg("prefix").none(), nb::arg("policy").none(),
             nb::arg("connect_timeout").none(), nb::arg("request_timeout").none(),
             nb::arg("retry_first").none(), nb::arg("retry_most").none(),
             nb::arg("max_inflight").none(), nb::arg("when_full").none(),
             nb::arg("full_timeout").none(), nb::arg("writers").none(), nb::arg("part").none(),
             nb::arg("ttl").none(), nb::arg("delete_corrupt").none())
        .def(
            "__contains__",
            [](PyTieredStore& store, nb::handle key) { return store.contains(parse_key(key)); },
            nb::arg("key").none(), "In the first tier, or by its name in the second.")
        .def(
            "delete",
            [](PyTieredStore& store, nb::handle key) {
                return is_done(store.remove(parse_key(key)));
            },
            nb::arg("key").none(),
            "From both tiers. False: neither had it.\n"
            "\n"
            "Raises what speaks of a server: the first tier has it no more, the second perhaps "
            "has.")
        .def(
            "_flush",
            [](PyTieredStore& store, nb::handle timeout) {
                return to_dict(store.flush(parse_timeout(timeout)));
            },
            nb::arg("timeout").none())
        .def(
            "_close",
            [](PyTieredStore& store, nb::handle timeout) {
                return to_dict(store.close(parse_timeout(timeout)));
            },
            nb::arg("timeout").none())
        .def("_owe", &PyTieredStore::owe, nb::arg("dropped"), nb::arg("dropped_bytes"))
        .def("_stats",
             [](PyTieredStore& store) {
                 const std::shared_ptr<TieredStore> own = store.live();
                 return to_dict([&] {
                     const WithoutGil without_gil;
                     return own->stats();
                 }());
             })
        .def_prop_ro(
            "first", [](const PyTieredStore& store) { return store.first(); },
            "The Store that was taken over: the first tier, for all else.")
        .def_prop_ro("closed", &PyTieredStore::is_closed, "Whether it was closed here.")
        .def_prop_ro("_is_foreign", &PyTieredStore::is_foreign);
    module.def("has_redis", &detail::has_redis,
               "Whether this was built with hiredis, without which there is no second tier.");
}

}  // namespace penstock::py
