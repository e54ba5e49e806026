// Asynchronous batches of store operations as a Python object, for programs with an event loop.
// Everything here needs the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "arguments.hpp"
#include "os/fork.hpp"
#include "remote/store_connector.hpp"

namespace penstock::py {

// Any thread. Holds the memory of a batch until its result is collected, or until close().
class PyStoreConnector {
public:
    // `store` is a PyStore.
    PyStoreConnector(nb::object store, unsigned threads, std::size_t most_pending);
    PyStoreConnector(const PyStoreConnector&) = delete;
    PyStoreConnector& operator=(const PyStoreConnector&) = delete;
    ~PyStoreConnector();

    [[nodiscard]] int descriptor() const;
    std::uint64_t copy(detail::BatchKind kind, const nb::sequence& keys,
                       const nb::sequence& buffers);
    std::uint64_t look(detail::BatchKind kind, const nb::sequence& keys);
    void unlock(const nb::sequence& keys);
    nb::list drain();
    void close();
    [[nodiscard]] bool is_closed() const;

private:
    using Memory = std::vector<std::unique_ptr<Pinned>>;

    // Raises Closed, and WrongProcess in a forked child.
    std::shared_ptr<detail::StoreConnector> live() const;
    std::uint64_t submit(detail::BatchKind kind, std::vector<detail::BatchItem> items,
                         Memory memory);
    void leave_to_the_parent() noexcept;
    [[nodiscard]] bool is_foreign() const noexcept { return generation_ != os::fork_generation(); }

    nb::object store_;
    std::string title_;
    std::shared_ptr<detail::StoreConnector> connector_;
    bool is_closed_ = false;
    std::uint64_t next_id_ = 1;
    std::unordered_map<std::uint64_t, Memory> memory_;  // by batch
    std::uint64_t generation_ = os::fork_generation();
};

void bind_store_connector(nb::module_& module);

}  // namespace penstock::py
