// One participant of a Store: its slot, and the implementation of its calls.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <vector>

#include "os/cuda.hpp"
#include "penstock/store.hpp"
#include "segment/life/attachment.hpp"
#include "segment/life/membership.hpp"
#include "segment/waiting/signal.hpp"
#include "store/entries.hpp"

namespace penstock::detail {

// Shared by the handle, its reservations and its pinned objects; leaves the segment when the last
// one goes. Any thread.
struct StoreCore final : Attachment, StoreEntries {
    // Participant 0 of a new segment; its slot is taken before the segment is visible.
    static std::shared_ptr<StoreCore> create(const std::string& name, const StoreOptions& options);
    // Joins an existing segment in a free slot. Throws Busy.
    static std::shared_ptr<StoreCore> attach(std::unique_ptr<Segment> segment);

    StoreCore(std::unique_ptr<Segment> joined, unsigned participant);
    StoreCore(const StoreCore&) = delete;
    StoreCore& operator=(const StoreCore&) = delete;
    ~StoreCore();

    void depart() noexcept override;

    // Writing.
    struct Staged {
        std::uint32_t entry = 0;
        std::span<std::byte> bytes;
    };
    Result<Staged> reserve(std::string_view key, std::uint64_t nbytes,
                           const ReserveOptions& options) noexcept;
    Status commit(std::uint32_t entry) noexcept;
    // Resizes a reservation whose data begin at `data`.
    Status resize(std::uint32_t entry, const std::byte* data, std::uint64_t nbytes) noexcept;

    // Reading. A returned Content is pinned: the caller must unpin() it.
    std::optional<Content> pin_key(std::string_view key) noexcept;
    // Key of a resident entry; empty: the entry is not resident.
    [[nodiscard]] std::string key_of(std::uint32_t entry) noexcept;
    Result<Content> wait_for(std::string_view key, const Wait& wait) noexcept;
    [[nodiscard]] StoreLook look(std::string_view key) noexcept;
    void count_look(bool is_hit) noexcept;

    // Removing.
    std::uint64_t clear() noexcept;
    // Reaps what the dead held; waits for other janitors.
    void reap() noexcept;
    std::uint64_t trim(std::uint64_t keep_bytes) noexcept;
    void register_cuda();
    void persist() noexcept;

    [[nodiscard]] Status check_usable() const noexcept;  // ok, or why the handle is unusable
    static Status closed() noexcept;
    [[nodiscard]] Status damaged(const char* what) const noexcept;  // "entries"
    [[nodiscard]] std::string title() const { return quoted(segment->name()); }

    Signal committed;
    CommonSpinBudget spin;  // of waits for a commit
    Membership membership;
    std::atomic<bool> is_fixed = false;  // the payload's mapping: locked, or pinned for a device
    Cancel closing;

private:
    using State = layout::EntryState;

    void join();
    void extend_reach() noexcept;
    void try_reap() noexcept;
    void take_over(unsigned participant) noexcept;
    void vacate() noexcept;

    Status check_request(std::string_view key, std::uint64_t nbytes,
                         const ReserveOptions& options) const noexcept;
    Result<std::uint32_t> stage(std::string_view key, const KeyHash& hash,
                                const ReserveOptions& options) noexcept;
    Status refuse_staged(std::string_view key, std::uint32_t entry, std::uint64_t seen) noexcept;
    std::uint32_t claim_entry(const KeyHash& hash) noexcept;
    Result<HeapBlock> allocate(std::uint32_t entry, const HeapRequest& request) noexcept;
    void unstick_all() noexcept;
    Status no_room(std::uint64_t bytes) noexcept;

    std::mutex janitor_;  // one thread at a time reaps or registers with CUDA
    std::unique_ptr<os::CudaRegistration> cuda_;  // released before the mapping
    std::unique_ptr<os::CudaRegistration> cuda_views_;
};

}  // namespace penstock::detail
