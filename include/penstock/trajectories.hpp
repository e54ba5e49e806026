// Trajectories: groups of token sequences on their way from many environments to one trainer.
//
// A group (all completions of one prompt) is one message of a Queue: whole or not at all. An
// environment asks for credit before it begins a rollout, so that what is on the way never gets
// older than the trainer allows; the trainer takes batches of exactly so many sequences, in whole
// groups, oldest first, with every living environment's minimum share in each.
//
// TrajectoryWriter: one thread may put while others begin. TrajectoryReader: one thread at a time.
// A batch: any thread, one at a time. docs/protocols.md says how credit is given and what a death
// gives back.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/codec.hpp"
#include "penstock/error.hpp"
#include "penstock/queue.hpp"
#include "penstock/wait.hpp"

namespace penstock {

// What a group may have for each of its tokens.
enum class Column : std::uint8_t {
    Tokens,
    Masks,
    Advantages,
    RefLogprobs,
    InferenceLogprobs,
    DistillTokenIds,  // the k likeliest tokens, for each token
    DistillLogprobs,
};
inline constexpr std::size_t kColumns = 7;
std::string_view name(Column column) noexcept;  // "ref_logprobs"
std::optional<Column> find_column(std::string_view name) noexcept;

// An array of a group that is to be written. Null data: the group has none.
struct ColumnSource {
    codec::DType dtype = codec::DType::Int32;
    const void* data = nullptr;
    std::uint64_t width = 1;  // values for each token, of the distill columns
};

// A group as C++ makes it; borrowed until write_group() and MessageWriter::write() are done.
struct GroupSource {
    std::string_view environment = "default";
    std::string_view instance_id;
    std::uint64_t begun = 0;                // the policy's version when its rollout began
    std::span<const std::int64_t> lengths;  // tokens of each sequence, 1 at least
    std::array<ColumnSource, kColumns> columns;
    ColumnSource scores;    // one for each sequence
    ColumnSource versions;  // the policy's version for each sequence
};
void write_group(const GroupSource& group, codec::MessageWriter& message);

// An array of a group that was read, where it lies.
struct ColumnView {
    codec::DType dtype = codec::DType::Int32;
    std::span<const std::byte> data;
    std::uint64_t width = 1;  // 0: another number for each token
};

// A group, checked: every column has a value for each token, or for each sequence.
struct GroupView {
    std::string environment;
    std::string instance_id;
    std::uint64_t begun = 0;
    std::vector<std::uint64_t> offsets;  // where each sequence begins, and where the last one ends
    std::array<std::optional<ColumnView>, kColumns> columns;
    std::optional<ColumnView> scores;
    std::optional<ColumnView> versions;

    [[nodiscard]] std::size_t sequences() const noexcept {
        return offsets.empty() ? 0 : offsets.size() - 1;
    }
    [[nodiscard]] std::uint64_t longest() const noexcept;  // tokens of its longest sequence
    // "the group 'q17' of 'gsm8k'"
    [[nodiscard]] std::string title() const;
};
// InvalidArgument with a sentence that names the column and the group; Incompatible for what a
// newer sender would write.
Result<GroupView> read_group(std::span<const std::byte> message);

inline constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();

struct TrajectoryOptions {
    std::uint64_t capacity = std::uint64_t{256} << 20U;  // bytes of groups waiting or being used
    unsigned slots = 4096;                               // groups, likewise
    unsigned participants = 256;                         // environments and trainers
    unsigned max_deliveries = 0;                         // as of a Queue; see nack()
    EndsWith ends_with = EndsWith::Creator;              // whose close() ends the stream
    // Versions that a group may be older than the policy that it is used for. No more is begun than
    // (max_staleness + 1) batches.
    std::uint64_t max_staleness = kUnlimited;
    MemoryOptions memory = {};
    // A user whose abandoned segment of that name is replaced, too; otherwise one's own only.
    std::optional<std::uint32_t> replaces_owner = std::nullopt;
};

struct EnvironmentOptions {
    std::string name = "default";  // 1 to 64 bytes; several writers may be the same environment
    double weight = 1;             // of what may be begun, beside the other living environments'
    double min_share = 0;          // of each batch, 0 to 1; rounded down to whole sequences
    unsigned group_size = 1;       // sequences that a rollout is expected to make
    // Of its groups, for display and for older programs; none: the next unused one.
    std::optional<std::int64_t> env_id = std::nullopt;
    // Where the minimum shares of all add up to more than 1 the trainer scales them down; without
    // this, to attach is refused then.
    bool scales_shares = false;
};

// One environment; with no name those that are gone and have left groups behind.
#define PENSTOCK_ENVIRONMENT_STATISTICS(X)                                                         \
    X(std::string, name, Part,                                                                     \
      "Of the environment; empty: of those that are gone and have left groups behind.")            \
    X(unsigned, writers, Gauge, "Writers that are alive.")                                         \
    X(double, weight, Gauge, "Share of what may be begun, beside the other living environments'.") \
    X(double, min_share, Gauge, "Share of each batch at least, 0 to 1.")                           \
    X(std::uint64_t, group_size, Gauge, "Sequences that a rollout is expected to make.")           \
    X(std::uint64_t, running_groups, Gauge, "Groups begun with credit and not put yet.")           \
    X(std::uint64_t, running_sequences, Gauge, "Sequences of the groups that are running.")        \
    X(std::uint64_t, waiting_groups, Gauge, "Groups put and not acknowledged, in a batch or not.") \
    X(std::uint64_t, waiting_sequences, Gauge, "Sequences of the groups that wait.")               \
    X(std::uint64_t, largest_waiting, Gauge, "Sequences of the largest group that waits.")
PENSTOCK_STATISTICS(EnvironmentStats, Statistics, PENSTOCK_ENVIRONMENT_STATISTICS);

// Of a whole queue of trajectories since its creation, and its participants now.
#define PENSTOCK_TRAJECTORY_STATISTICS(X)                                                         \
    X(QueueStats, queue, Part, "Of the queue that carries the groups.")                           \
    X(std::uint64_t, version, Gauge, "Version of the policy: the step of the last ack().")        \
    X(std::uint64_t, batch_sequences, Gauge, "Sequences of a batch; 0: no trainer has come yet.") \
    X(std::optional<std::uint64_t>, max_staleness, Gauge,                                         \
      "Versions that a group may be old; none: any age.")                                         \
    X(std::uint64_t, batches, Counter, "Batches that were acknowledged.")                         \
    X(std::uint64_t, groups, Counter, "Groups of the batches that were acknowledged.")            \
    X(std::uint64_t, sequences, Counter, "Sequences of the batches that were acknowledged.")      \
    X(std::uint64_t, dropped_stale, Counter,                                                      \
      "Groups dropped for their age, by readers that asked for it.")                              \
    X(std::optional<std::uint64_t>, max_tokens, Gauge,                                            \
      "Tokens of a sequence at most, as the trainer takes them; none: no bound.")                 \
    X(std::uint64_t, dead_lettered, Counter,                                                      \
      "Groups that became dead letters as no batch could be made of them.")                       \
    X(std::vector<EnvironmentStats>, environments, Part, "Each of the environments.")
PENSTOCK_STATISTICS(TrajectoryStats, Statistics, PENSTOCK_TRAJECTORY_STATISTICS);

namespace detail {
class Board;
class HeldGroup;
struct WriterState;
struct ReaderState;
}  // namespace detail

// The right to make one group, taken before the work begins. Destroyed without put it goes back.
class Rollout {
public:
    Rollout(Rollout&& other) noexcept;
    Rollout& operator=(Rollout&& other) noexcept;
    ~Rollout();

    // The policy's version when it began.
    [[nodiscard]] std::uint64_t version() const noexcept { return version_; }
    void release() noexcept;

    // For the library.
    Rollout(std::shared_ptr<detail::WriterState> state, std::uint64_t load,
            std::uint64_t version) noexcept
        : state_(std::move(state)), load_(load), version_(version) {}

private:
    std::shared_ptr<detail::WriterState> state_;
    std::uint64_t load_;
    std::uint64_t version_;
};

// An environment's place.
class TrajectoryWriter {
public:
    // As Queue::create() and attach(); InvalidArgument also for shares that add up to more than 1
    // with those of the living.
    static TrajectoryWriter create(const std::string& name, const TrajectoryOptions& options,
                                   const EnvironmentOptions& environment);
    static TrajectoryWriter attach(const std::string& name, const EnvironmentOptions& environment,
                                   const Wait& wait = Deadline::now(),
                                   const std::string& instance = {}, const Trust& trust = {});

    // How many groups of group_size could be begun now. 0: the trainer has enough to do, or has
    // not come yet.
    [[nodiscard]] std::uint64_t credit() const;
    // Waits for credit for one group. Timeout, Cancelled, Closed.
    Result<Rollout> begin(const Wait& wait = {}) noexcept;

    // Memory for a group's message (write_group()), and its way into the queue: commit() checks it
    // and hands the rollout's credit over. InvalidArgument for what is no sound group, TooLarge for
    // more sequences than a batch has: the loan is gone, the rollout is not. Timeout: both stay.
    Result<QueueLoan> loan(std::size_t nbytes, const Wait& wait = {}) noexcept;
    Status commit(QueueLoan& loan, Rollout* rollout = nullptr, const Wait& wait = {}) noexcept;
    Status put(const codec::MessageWriter& message, Rollout* rollout = nullptr,
               const Wait& wait = {}) noexcept;
    // Waits until a group of so many bytes would probably find room, and puts nothing.
    Status wait_room(std::size_t nbytes, const Wait& wait) noexcept;

    [[nodiscard]] bool has_room() const noexcept;
    [[nodiscard]] std::uint64_t version() const noexcept;
    [[nodiscard]] const std::string& environment() const noexcept;
    [[nodiscard]] std::int64_t env_id() const noexcept;
    [[nodiscard]] TrajectoryStats stats() const;
    void close() noexcept;          // ends the stream if `ends_with` says so: see Queue::close()
    void end() noexcept;            // the stream, without leaving
    void request_close() noexcept;  // as of a Queue
    [[nodiscard]] std::string instance() const;
    // What was lost with the abandoned queue that create() replaced; nothing of attach().
    [[nodiscard]] KeptData replaced() const;

private:
    explicit TrajectoryWriter(std::shared_ptr<detail::WriterState> state);
    std::shared_ptr<detail::WriterState> state_;  // none once it is closed, or moved from
    std::string instance_;
    std::string environment_;
};

struct BatchRequest {
    std::uint64_t sequences = 0;     // 0: as the reader was made for
    std::uint64_t lookahead = 4096;  // groups that are looked at, the oldest ones
    bool causal_shift = false;       // tokens without the last, everything else without the first
    bool drops_stale = false;        // throw away, and count, what is older than max_staleness
    // Groups with more sequences than the batch become dead letters instead of TooLarge.
    bool sets_oversized_aside = false;
};

// An array that a column is written to.
struct OutputArray {
    codec::DType dtype = codec::DType::Int32;
    std::byte* data = nullptr;
    std::uint64_t row_bytes = 0;    // from a sequence to the next; padded only
    std::uint64_t row_items = 0;    // values of a row, padded only; tokens times width
    std::uint64_t total_items = 0;  // that there is room for
};

// Exactly so many sequences in whole groups, oldest first. Destroyed without ack() they are given
// back.
class TrajectoryBatch {
public:
    explicit TrajectoryBatch(std::vector<detail::HeldGroup> groups, bool is_shifted,
                             std::shared_ptr<detail::ReaderState> reader);
    TrajectoryBatch(TrajectoryBatch&& other) noexcept;
    TrajectoryBatch& operator=(TrajectoryBatch&& other) noexcept;
    ~TrajectoryBatch();

    // None once it is over. Of a group that is not there: nothing.
    [[nodiscard]] std::size_t groups() const noexcept;
    [[nodiscard]] const GroupView& group(std::size_t index) const noexcept;
    [[nodiscard]] std::span<const std::byte> message(std::size_t index) const noexcept;
    [[nodiscard]] unsigned deliveries(std::size_t index) const noexcept;
    [[nodiscard]] std::uint64_t sequence(std::size_t index) const noexcept;  // the queue's
    [[nodiscard]] bool is_restored(std::size_t index) const noexcept;        // not in the queue

    // Tokens of each sequence, after the shift.
    [[nodiscard]] const std::vector<std::uint64_t>& lengths() const noexcept { return lengths_; }
    [[nodiscard]] std::uint64_t longest() const noexcept { return longest_; }
    [[nodiscard]] std::uint64_t total() const noexcept { return total_; }

    [[nodiscard]] bool has(Column column) const noexcept;      // every group does
    [[nodiscard]] bool is_used(Column column) const noexcept;  // some group does
    // Of a column: the widest of the groups' dtypes, and the common number of values for a token.
    // InvalidArgument where a group lacks it, or the widths differ.
    Result<codec::DType> dtype(Column column) const;
    Result<std::uint64_t> width(Column column) const;

    // Groups that keep the column from becoming one array: those that lack it, that have another
    // number of values for a token than most, or values that `to` can't hold. Looks at each value.
    [[nodiscard]] std::vector<std::size_t> unfit(Column column,
                                                 std::optional<codec::DType> to) const;

    // Ok: what was read of it before is what was put. WrongProcess: its reader lost its place (its
    // descriptor was closed by this process), and the memory may have been another's.
    [[nodiscard]] Status check_held() const noexcept;
    // Writes a column: row after row, the rest of each filled with `pad`, or all in a row. Integers
    // may become int32 or int64, and real numbers float32 or float64; InvalidArgument else, and for
    // a number that does not fit. TooLarge if the array is too small.
    Status fill_padded(Column column, const OutputArray& out, double pad) const;
    Status fill_packed(Column column, const OutputArray& out) const;
    // 1 where there is a token: `row_items` bytes a row.
    void fill_padding_mask(std::byte* out, std::uint64_t row_items) const noexcept;
    void fill_positions(std::span<std::int64_t> out) const noexcept;    // total()
    void fill_cu_seqlens(std::span<std::int32_t> out) const noexcept;   // sequences + 1
    void fill_group_index(std::span<std::int64_t> out) const noexcept;  // sequences
    Status fill_scores(std::span<double> out) const noexcept;           // sequences
    void fill_versions(std::span<std::int64_t> out) const noexcept;     // sequences

    // Done with, all of it; `step` is the policy's version from now on, if it is higher.
    void ack(std::uint64_t step) noexcept;
    // To the queue: they are delivered again, marked as redelivered. With a `max_deliveries`, one
    // that failed so often in batches with others comes again beside such as have not, where they
    // make an exact fill, and becomes a dead letter if that fails too; else after twice as many
    // deliveries.
    void nack() noexcept;
    void untake() noexcept;  // the same, as if they had never been in a batch
    // Ends the batch: the group of that index becomes a dead letter, and comes in no batch until it
    // is requeued; the others as by untake(). One of an earlier life stays with the reader, in
    // held_messages(), and comes in no batch of it.
    void dead_letter(std::size_t index) noexcept;
    [[nodiscard]] bool is_open() const noexcept { return !groups_.empty(); }

private:
    void forget() noexcept;
    void keep_restored() noexcept;
    std::vector<detail::HeldGroup> groups_;
    std::vector<std::uint64_t> lengths_;
    std::uint64_t longest_ = 0;
    std::uint64_t total_ = 0;
    bool is_shifted_ = false;
    std::shared_ptr<detail::ReaderState> reader_;
};

// The trainer's place. Several may share a queue: each group goes to one of them. Their requests
// for a batch are served in the order in which they came, whatever number of sequences each wants;
// a trainer that waits, or is at work on a batch, holds no other group.
class TrajectoryReader {
public:
    // `sequences`: how many a batch has; environments get credit by it.
    static TrajectoryReader create(const std::string& name, const TrajectoryOptions& options,
                                   std::uint64_t sequences);
    static TrajectoryReader attach(const std::string& name, std::uint64_t sequences,
                                   const Wait& wait = Deadline::now(),
                                   const std::string& instance = {}, const Trust& trust = {});

    // Timeout: no exact fill came together, or another trainer's request is before this one; the
    // sentence says what is waiting, and the queue is as it was. TooLarge: a
    // group has more sequences than the batch; it stays. Closed: the stream has ended, and what is
    // left makes no such batch. Cancelled, Corrupt.
    Result<TrajectoryBatch> next_batch(const BatchRequest& request = {}, const Wait& wait = {});
    // Whether next_batch() would not wait, as far as can be seen without taking anything.
    [[nodiscard]] bool is_ready() const noexcept;
    Status wait_ready(const Wait& wait) noexcept;

    // Groups that were read and are in no batch, oldest first; see restore(). Those of an earlier
    // life are held here and are nowhere else. The others lie in the queue, where the last search
    // has seen them; of several trainers the one in the first place has them.
    enum class Held : std::uint8_t { All, Restored };
    [[nodiscard]] std::vector<std::vector<std::byte>> held_messages(Held which = Held::All) const;
    // A group of an earlier life, to be delivered again, marked as redelivered.
    Status restore(std::vector<std::byte> message);
    void set_version(std::uint64_t version) noexcept;

    [[nodiscard]] std::uint64_t version() const noexcept;
    [[nodiscard]] std::uint64_t sequences() const noexcept;
    [[nodiscard]] TrajectoryStats stats() const;
    // Sequences with more tokens can't be served: writers refuse to put them from now on
    // (TooLarge), and what waits already becomes a dead letter when its turn comes. 0: no bound.
    void limit_tokens(std::uint64_t max_tokens) noexcept;
    // What next_batch() has made dead letters since the last call, in words, and why.
    [[nodiscard]] std::vector<std::string> take_notices();
    // Throws away what waits and no trainer has, and goes on; how many groups. Linear in what
    // waits.
    Result<std::uint64_t> drop_waiting();
    // Groups that contradict themselves, that no batch can be made of, and those that came back
    // `max_deliveries` times: as of a Queue.
    [[nodiscard]] Result<std::vector<DeadLetter>> dead_letters(std::size_t limit = 100) const;
    [[nodiscard]] Result<std::vector<std::byte>> copy_dead_letter(std::uint64_t sequence) const;
    Result<std::uint64_t> requeue_dead_letters() noexcept;
    Result<std::uint64_t> requeue_dead_letters(std::span<const std::uint64_t> sequences) noexcept;
    Result<std::uint64_t> drop_dead_letters() noexcept;
    Result<std::uint64_t> drop_dead_letters(std::span<const std::uint64_t> sequences) noexcept;
    std::uint64_t discard() noexcept;  // as of a Queue
    // Ends the stream if `ends_with` says so, as of a Queue.
    void close() noexcept;
    void end() noexcept;
    bool reopen() noexcept;  // as of a Queue
    void request_close() noexcept;
    [[nodiscard]] std::string instance() const;
    // What was lost with the abandoned queue that create() replaced; nothing of attach().
    [[nodiscard]] KeptData replaced() const;

private:
    explicit TrajectoryReader(std::shared_ptr<detail::ReaderState> state);
    std::shared_ptr<detail::ReaderState> state_;  // none once it is closed, or moved from
    std::string instance_;
};

// As `penstock info` shows it; attaches nowhere. Incompatible for another kind of queue.
struct TrajectoryInfo {
    QueueInfo queue;
    TrajectoryStats trajectories;
};
TrajectoryInfo inspect_trajectories(const std::string& name);

}  // namespace penstock
