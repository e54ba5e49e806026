// Trajectories: groups of token sequences from many environments to one trainer.
//
// A group (all completions of one prompt) is one message of a Queue: whole or not at all. An
// environment gets credit before it begins a rollout, so that work in progress never becomes older
// than the trainer allows. The trainer takes batches of an exact number of sequences, in whole
// groups, oldest first, with every living environment's minimum share in each.
//
// TrajectoryWriter: one thread may put while others begin. TrajectoryReader: one thread at a time.
// A batch: any thread, one at a time. docs/protocols.md says how credit is granted and what a death
// returns.
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

// A column of a group: values for each of its tokens.
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

// A column to be written. Null data: the group does not have it.
struct ColumnSource {
    codec::DType dtype = codec::DType::Int32;
    const void* data = nullptr;
    std::uint64_t width = 1;  // values for each token, of the distill columns
};

// A group built in C++; borrowed until write_group() and MessageWriter::write() have returned.
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

// A column of a received group; its data lies in the message.
struct ColumnView {
    codec::DType dtype = codec::DType::Int32;
    std::span<const std::byte> data;
    std::uint64_t width = 1;  // 0: it differs between tokens
};

// A checked group: every column has a value for each token, or for each sequence.
struct GroupView {
    std::string environment;
    std::string instance_id;
    std::uint64_t begun = 0;
    std::vector<std::uint64_t> offsets;  // start of each sequence, and the end of the last
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
// InvalidArgument with a sentence that names column and group; Incompatible for what a newer sender
// may write.
Result<GroupView> read_group(std::span<const std::byte> message);

inline constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();

struct TrajectoryOptions {
    std::uint64_t capacity = std::uint64_t{256} << 20U;  // bytes of groups waiting or being used
    unsigned slots = 4096;                               // groups, likewise
    unsigned participants = 256;                         // groups waiting or being used
    unsigned max_deliveries = 0;                         // as of a Queue; see nack()
    EndsWith ends_with = EndsWith::Creator;              // whose close() ends the stream
    WaitPolicy waiting = WaitPolicy::Balanced;           // for groups, room and credit
    // How many versions a group may be older than the policy it is used for. At most (max_staleness
    // + 1) batches are in progress, and those that a trainer has not acknowledged while another one
    // waited a second for credit.
    std::uint64_t max_staleness = kUnlimited;
    MemoryOptions memory = {};
    // A second user, besides this process's own, whose abandoned segment of that name may be
    // replaced.
    std::optional<std::uint32_t> replaces_owner = std::nullopt;
};

struct EnvironmentOptions {
    std::string name = "default";  // 1 to 64 bytes; several writers may be the same environment
    double weight = 1;             // share of the credit, relative to the other living environments
    double min_share = 0;          // of each batch, 0 to 1; rounded down to whole sequences
    unsigned group_size = 1;       // sequences that a rollout is expected to make
    // Id of its groups, for display and for older programs; none: the next unused id.
    std::optional<std::int64_t> env_id = std::nullopt;
    // If the minimum shares of all environments add up to more than 1 the trainer scales them down;
    // without this flag attaching is refused then.
    bool scales_shares = false;
};

// One environment; without a name, those that have left and whose groups remain.
#define PENSTOCK_ENVIRONMENT_STATISTICS(X)                                                      \
    X(std::string, name, Part,                                                                  \
      "Of the environment; empty: those that have left and whose groups remain.")               \
    X(unsigned, writers, Gauge, "Writers that are alive.")                                      \
    X(double, weight, Gauge, "Share of the credit, relative to the other living environments.") \
    X(double, min_share, Gauge, "Share of each batch at least, 0 to 1.")                        \
    X(std::uint64_t, group_size, Gauge, "Sequences that a rollout is expected to make.")        \
    X(std::uint64_t, running_groups, Gauge, "Groups begun with credit and not put yet.")        \
    X(std::uint64_t, running_sequences, Gauge, "Sequences of the groups that are running.")     \
    X(std::uint64_t, waiting_groups, Gauge,                                                     \
      "Groups put and not acknowledged, in a batch or waiting.")                                \
    X(std::uint64_t, waiting_sequences, Gauge, "Sequences of the groups that wait.")            \
    X(std::uint64_t, largest_waiting, Gauge, "Sequences of the largest group that waits.")
PENSTOCK_STATISTICS(EnvironmentStats, Statistics, PENSTOCK_ENVIRONMENT_STATISTICS);

// Of a whole queue of trajectories since its creation, and its participants now.
#define PENSTOCK_TRAJECTORY_STATISTICS(X)                                                    \
    X(QueueStats, queue, Part, "Of the queue that carries the groups.")                      \
    X(std::uint64_t, version, Gauge, "Version of the policy: the step of the last ack().")   \
    X(std::uint64_t, batch_sequences, Gauge,                                                 \
      "Sequences of a batch; 0: no trainer has attached yet.")                               \
    X(std::optional<std::uint64_t>, max_staleness, Gauge,                                    \
      "Versions that a group may be old; none: any age.")                                    \
    X(std::uint64_t, batches, Counter, "Batches that were acknowledged.")                    \
    X(std::uint64_t, groups, Counter, "Groups of the batches that were acknowledged.")       \
    X(std::uint64_t, sequences, Counter, "Sequences of the batches that were acknowledged.") \
    X(std::uint64_t, dropped_stale, Counter,                                                 \
      "Groups dropped for their age, by readers that asked for it.")                         \
    X(std::optional<std::uint64_t>, max_tokens, Gauge,                                       \
      "Tokens of a sequence at most; none: no bound.")                                       \
    X(std::uint64_t, dead_lettered, Counter,                                                 \
      "Dead letters because no batch could be made of them.")                                \
    X(std::vector<EnvironmentStats>, environments, Part, "Each of the environments.")
PENSTOCK_STATISTICS(TrajectoryStats, Statistics, PENSTOCK_TRAJECTORY_STATISTICS);

namespace detail {
class Board;
class HeldGroup;
struct WriterState;
struct ReaderState;
}  // namespace detail

// The right to make one group, taken before the work begins. Destruction without put returns the
// credit.
class Rollout {
public:
    Rollout(Rollout&& other) noexcept;
    Rollout& operator=(Rollout&& other) noexcept;
    ~Rollout();

    // The policy's version when the rollout began.
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

// A participant that produces the groups of one environment.
class TrajectoryWriter {
public:
    // As Queue::create() and attach(); InvalidArgument also if the minimum shares of the living
    // environments would add up to more than 1.
    static TrajectoryWriter create(const std::string& name, const TrajectoryOptions& options,
                                   const EnvironmentOptions& environment);
    static TrajectoryWriter attach(const std::string& name, const EnvironmentOptions& environment,
                                   const Wait& wait = Deadline::now(),
                                   const std::string& instance = {}, const Trust& trust = {});

    // Groups of group_size that could be begun now. 0: the trainer has enough work, or has not
    // attached yet.
    [[nodiscard]] std::uint64_t credit() const;
    // Waits for credit for one group. Timeout, Cancelled, Closed.
    Result<Rollout> begin(const Wait& wait = {}) noexcept;

    // Memory for a group's message (write_group()); commit() checks the message, queues it, and
    // hands the rollout's credit over. InvalidArgument for a malformed group, TooLarge for more
    // sequences than a batch has: the loan is gone, the rollout stays. Timeout: both stay.
    Result<QueueLoan> loan(std::size_t nbytes, const Wait& wait = {}) noexcept;
    Status commit(QueueLoan& loan, Rollout* rollout = nullptr, const Wait& wait = {}) noexcept;
    Status put(const codec::MessageWriter& message, Rollout* rollout = nullptr,
               const Wait& wait = {}) noexcept;
    // Waits until a group of that many bytes would probably find room; puts nothing.
    Status wait_room(std::size_t nbytes, const Wait& wait) noexcept;

    [[nodiscard]] bool has_room() const noexcept;
    [[nodiscard]] std::uint64_t version() const noexcept;
    [[nodiscard]] const std::string& environment() const noexcept;
    [[nodiscard]] std::int64_t env_id() const noexcept;
    [[nodiscard]] TrajectoryStats stats() const;
    void close() noexcept;  // ends the stream if `ends_with` names this handle: see Queue::close()
    void end() noexcept;    // ends the stream without leaving
    void request_close() noexcept;  // as of a Queue
    [[nodiscard]] std::string instance() const;
    // Data lost with the abandoned queue that create() replaced; empty after attach().
    [[nodiscard]] KeptData replaced() const;

private:
    explicit TrajectoryWriter(std::shared_ptr<detail::WriterState> state);
    std::shared_ptr<detail::WriterState> state_;  // none once it is closed, or moved from
    std::string instance_;
    std::string environment_;
};

struct BatchRequest {
    std::uint64_t sequences = 0;     // 0: the reader's default
    std::uint64_t lookahead = 4096;  // oldest groups considered
    bool causal_shift = false;  // tokens without the last, every other column without the first
    bool drops_stale = false;   // drop, and count, groups older than max_staleness
    // Groups with more sequences than the batch become dead letters instead of a TooLarge.
    bool sets_oversized_aside = false;
};

// Memory that a column is written to.
struct OutputArray {
    codec::DType dtype = codec::DType::Int32;
    std::byte* data = nullptr;
    std::uint64_t row_bytes = 0;    // distance between rows; padded only
    std::uint64_t row_items = 0;    // values in a row; padded only; tokens times width
    std::uint64_t total_items = 0;  // capacity in values
};

// An exact number of sequences in whole groups, oldest first. Destruction without ack() nacks them.
class TrajectoryBatch {
public:
    explicit TrajectoryBatch(std::vector<detail::HeldGroup> groups, bool is_shifted,
                             std::shared_ptr<detail::ReaderState> reader);
    TrajectoryBatch(TrajectoryBatch&& other) noexcept;
    TrajectoryBatch& operator=(TrajectoryBatch&& other) noexcept;
    ~TrajectoryBatch();

    // Queries of an ended batch, or of an index beyond groups(), return nothing.
    [[nodiscard]] std::size_t groups() const noexcept;
    [[nodiscard]] const GroupView& group(std::size_t index) const noexcept;
    [[nodiscard]] std::span<const std::byte> message(std::size_t index) const noexcept;
    [[nodiscard]] unsigned deliveries(std::size_t index) const noexcept;
    [[nodiscard]] std::uint64_t sequence(std::size_t index) const noexcept;  // in the queue
    [[nodiscard]] bool is_restored(std::size_t index) const noexcept;        // by restore()

    // Tokens of each sequence, after the causal shift.
    [[nodiscard]] const std::vector<std::uint64_t>& lengths() const noexcept { return lengths_; }
    [[nodiscard]] std::uint64_t longest() const noexcept { return longest_; }
    [[nodiscard]] std::uint64_t total() const noexcept { return total_; }

    [[nodiscard]] bool has(Column column) const noexcept;      // in every group
    [[nodiscard]] bool is_used(Column column) const noexcept;  // in some group
    // The widest of the groups' dtypes, and the common number of values for a token.
    // InvalidArgument if a group lacks the column or the widths differ.
    Result<codec::DType> dtype(Column column) const;
    Result<std::uint64_t> width(Column column) const;

    // Groups that keep the column from becoming one array: they lack it, have another number of
    // values for a token than most, or have values that `to` cannot hold. Reads every value.
    [[nodiscard]] std::vector<std::size_t> unfit(Column column,
                                                 std::optional<codec::DType> to) const;

    // Ok: everything read so far is what was put. WrongProcess: the reader lost its slot (the
    // process closed its descriptor), and the memory may have been reused.
    [[nodiscard]] Status check_held() const noexcept;
    // Writes a column: padded, with the rest of each row filled with `pad`, or packed. Integers may
    // be converted to int32 or int64, and real numbers to float32 or float64; InvalidArgument for
    // other conversions and for a number that does not fit. TooLarge if the array is too small.
    Status fill_padded(Column column, const OutputArray& out, double pad) const;
    Status fill_packed(Column column, const OutputArray& out) const;
    // 1 where there is a token: `row_items` bytes a row.
    void fill_padding_mask(std::byte* out, std::uint64_t row_items) const noexcept;
    void fill_positions(std::span<std::int64_t> out) const noexcept;    // total()
    void fill_cu_seqlens(std::span<std::int32_t> out) const noexcept;   // sequences + 1
    void fill_group_index(std::span<std::int64_t> out) const noexcept;  // sequences
    Status fill_scores(std::span<double> out) const noexcept;           // sequences
    void fill_versions(std::span<std::int64_t> out) const noexcept;     // sequences

    // Acknowledges all groups; `step` becomes the policy's version if it is higher.
    void ack(std::uint64_t step) noexcept;
    // Returns the groups to the queue, to be redelivered. With `max_deliveries`, a group that
    // failed that often within batches is delivered again in a batch whose other groups have not,
    // where these make an exact fill, and becomes a dead letter if that fails too; without such a
    // fill after twice as many deliveries.
    void nack() noexcept;
    void untake() noexcept;  // returns the groups without counting this delivery
    // Ends the batch: the group at `index` becomes a dead letter, and comes in no batch until it is
    // requeued; the rest are returned as by untake(). A restored group stays with the reader, in
    // held_messages(), and comes in no batch.
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

// A participant that trains. Several may share a queue: each group goes to one of them. Requests
// for a batch are served in the order in which they came, whatever number of sequences each wants.
// A trainer that waits, or works on a batch, holds no other group.
class TrajectoryReader {
public:
    // `sequences`: size of a batch; credit is computed from it.
    static TrajectoryReader create(const std::string& name, const TrajectoryOptions& options,
                                   std::uint64_t sequences);
    static TrajectoryReader attach(const std::string& name, std::uint64_t sequences,
                                   const Wait& wait = Deadline::now(),
                                   const std::string& instance = {}, const Trust& trust = {});

    // Timeout: no exact fill was possible, or another trainer's request is first in line; the
    // sentence says what is waiting, and the queue is unchanged. TooLarge: a group has more
    // sequences than the batch; it stays. Closed: the stream has ended, and the rest makes no such
    // batch. Cancelled, Corrupt.
    Result<TrajectoryBatch> next_batch(const BatchRequest& request = {}, const Wait& wait = {});
    // Whether next_batch() would return at once, as far as a look without taking anything can tell.
    [[nodiscard]] bool is_ready() const noexcept;
    Status wait_ready(const Wait& wait) noexcept;

    // Groups that were read and are in no batch, oldest first; see restore(). Restored groups are
    // held by this handle alone. The rest are in the queue, as the last search saw them; of several
    // trainers, the one first in line reports them.
    enum class Held : std::uint8_t { All, Restored };
    [[nodiscard]] std::vector<std::vector<std::byte>> held_messages(Held which = Held::All) const;
    // Adds a group of a former process (a checkpoint), to be delivered again, marked as
    // redelivered.
    Status restore(std::vector<std::byte> message);
    // The policy's version, of a restored trainer; as with ack(), a lower one changes nothing.
    void raise_version(std::uint64_t version) noexcept;

    [[nodiscard]] std::uint64_t version() const noexcept;
    [[nodiscard]] std::uint64_t sequences() const noexcept;
    [[nodiscard]] TrajectoryStats stats() const;
    // Longest sequence that can be trained on: writers refuse longer ones from now on (TooLarge),
    // and waiting groups with longer ones become dead letters at their turn. 0: no bound.
    void limit_tokens(std::uint64_t max_tokens) noexcept;
    // Sentences about the groups that next_batch() made dead letters since the last call.
    [[nodiscard]] std::vector<std::string> take_notices();
    // Drops the waiting groups that no trainer holds, and goes on; returns how many. Linear in
    // their number.
    Result<std::uint64_t> drop_waiting();
    // Dead letters: groups that contradict themselves, that no batch can be made of, or that were
    // delivered `max_deliveries` times. As of a Queue.
    [[nodiscard]] Result<std::vector<DeadLetter>> dead_letters(std::size_t limit = 100) const;
    [[nodiscard]] Result<std::vector<std::byte>> copy_dead_letter(std::uint64_t sequence) const;
    Result<std::uint64_t> requeue_dead_letters() noexcept;
    Result<std::uint64_t> requeue_dead_letters(std::span<const std::uint64_t> sequences) noexcept;
    Result<std::uint64_t> drop_dead_letters() noexcept;
    Result<std::uint64_t> drop_dead_letters(std::span<const std::uint64_t> sequences) noexcept;
    std::uint64_t discard() noexcept;  // as of a Queue
    // Ends the stream if `ends_with` names this handle, as Queue::close() does.
    void close() noexcept;
    void end() noexcept;
    bool reopen() noexcept;  // as of a Queue
    void request_close() noexcept;
    [[nodiscard]] std::string instance() const;
    // Data lost with the abandoned queue that create() replaced; empty after attach().
    [[nodiscard]] KeptData replaced() const;

private:
    explicit TrajectoryReader(std::shared_ptr<detail::ReaderState> state);
    std::shared_ptr<detail::ReaderState> state_;  // none once it is closed, or moved from
    std::string instance_;
};

// A queue of trajectories as `penstock info` shows it; does not attach. Incompatible for another
// kind of queue.
struct TrajectoryInfo {
    QueueInfo queue;
    TrajectoryStats trajectories;
};
TrajectoryInfo inspect_trajectories(const std::string& name);

}  // namespace penstock
