#include "trajectories/board.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>

#include "segment/hash.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

using layout::BoardParticipant;
using layout::GroupTag;
using layout::Load;
using layout::SlotState;

void add(Load& sum, const Load& more) noexcept {
    sum.groups += more.groups;
    sum.sequences += more.sequences;
}

double real(const std::atomic<std::uint64_t>& word) noexcept {
    return std::bit_cast<double>(load_relaxed(word));
}

// Hostile settings must not become undefined arithmetic.
double sane(double value) noexcept {
    return std::isfinite(value) && value > 0 ? std::min(value, 1e12) : 0;
}

std::string name_of(const BoardParticipant& participant) {
    std::string name;
    for (const auto& word : participant.name) {
        std::uint64_t letters = load_relaxed(word);
        for (unsigned i = 0; i < sizeof letters && (letters & 0xFFU) != 0; ++i, letters >>= 8U) {
            name += static_cast<char>(letters & 0xFFU);
        }
    }
    return name;
}

}  // namespace

std::uint64_t environment_hash(std::string_view name) noexcept {
    const std::uint64_t hash = fnv1a(name);
    const std::uint64_t folded = (hash ^ hash >> 40U) & ((std::uint64_t{1} << 40U) - 1);
    return folded == 0 ? 1 : folded;
}

void Board::check(const QueueView& view) {
    const QueueShape& shape = view.shape();
    if (shape.application_bytes < bytes(shape.participants)) {
        throw Error(ErrorCode::Corrupt, "the queue is damaged: its accounts have no room");
    }
}

// pairs with: the acquire loads of version: what a trainer did before is seen with it
void Board::raise_version(std::uint64_t version) noexcept {
    std::uint64_t seen = load_relaxed(state().version);
    while (seen < version && !cas_acq_rel(state().version, seen, version)) {
    }
}

void Board::sign(const EnvironmentOptions& environment) noexcept {
    BoardParticipant& participant = own();
    store_release(participant.environment, 0);
    store_seq_cst(participant.running, 0);
    store_seq_cst(participant.asking, 0);
    store_relaxed(participant.weight, std::bit_cast<std::uint64_t>(environment.weight));
    store_relaxed(participant.min_share, std::bit_cast<std::uint64_t>(environment.min_share));
    store_relaxed(participant.group_size, environment.group_size);
    for (std::size_t word = 0; word < BoardParticipant::kNameWords; ++word) {
        const std::size_t begin = std::min(word * 8, environment.name.size());
        store_relaxed(participant.name[word],
                      application_word(std::string_view(environment.name).substr(begin, 8)));
    }
    // pairs with: the acquire in is_living()
    store_release(participant.environment, environment_hash(environment.name));
}

// Calls use(tag) for every group that was put and is not acknowledged.
template <typename Use>
void Board::for_each_waiting(Use&& use) const noexcept {
    for (std::uint64_t index = 0; index < view_.shape().slots; ++index) {
        const layout::QueueSlot& slot = view_.slot(index);
        const SlotState state = layout::decode_slot(load_acquire(slot.word)).state;
        const bool is_there =
            state == SlotState::Ready || state == SlotState::Taken || state == SlotState::Returned;
        if (is_there) use(layout::decode_tag(load_relaxed(slot.tag)));
    }
}

Board::Census Board::take_census(std::uint64_t environment) const noexcept {
    Census census;
    const unsigned self = core_ == nullptr ? view_.shape().participants : core_->self;
    for (unsigned place = 0; place < view_.shape().participants; ++place) {
        if (!is_living(place)) continue;
        const BoardParticipant& participant = participants_[place];
        // Reads `asking` first, then `running`, then the slots: work moves in that order, so work
        // that moves meanwhile is seen twice and never missed.
        // pairs with: the stores in try_begin() and in WriterState::hand_over()
        const Load asking = layout::decode_load(load_seq_cst(participant.asking));
        const Load running = layout::decode_load(load_seq_cst(participant.running));
        if (asking.groups != 0 && place != self) {
            census.has_asker = true;
            census.has_earlier_asker = census.has_earlier_asker || place < self;
        }
        add(census.total, asking);
        add(census.total, running);
        const std::uint64_t hash = load_acquire(participant.environment);
        bool is_first = true;  // of its environment: a weight counts once
        for (unsigned other = 0; other < place && is_first; ++other) {
            is_first = !is_living(other) || load_acquire(participants_[other].environment) != hash;
        }
        const double weight = sane(real(participant.weight));
        if (is_first) census.weights += weight;
        if (is_first && hash != environment) {
            census.other_shares += std::min(sane(real(participant.min_share)), 1.0);
        }
        if (hash != environment) continue;
        add(census.own, asking);
        add(census.own, running);
        if (is_first) census.own_weight = weight;
        census.own_share = std::max(census.own_share, sane(real(participant.min_share)));
        census.own_group_size =
            std::max(census.own_group_size, load_relaxed(participant.group_size));
    }
    census.dead_letters = count_dead_letters(view_);
    for_each_waiting([&](const GroupTag& tag) {
        add(census.total, {1, tag.sequences});
        if (tag.environment == environment) add(census.own, {1, tag.sequences});
    });
    return census;
}

std::uint64_t Board::room(const Census& census, std::uint64_t group_size,
                          std::uint64_t shortage) const noexcept {
    const auto left = [](std::uint64_t limit, std::uint64_t used) {
        return limit > used ? limit - used : 0;
    };
    // Other environments' minimums are theirs; weights divide the rest, unless the shortage says
    // otherwise.
    const double rest = 1 - std::min(census.other_shares, 1.0);
    const double weight = census.weights > 0 ? census.own_weight / census.weights : 1;
    const double part = shortage == 0 ? std::min(weight, rest) : rest;
    const auto share_of = [](double share, std::uint64_t whole, std::uint64_t least) {
        constexpr double kRounding = 1e-9;  // 1 - 0.3 of 10 is 7
        const double sequences = share * static_cast<double>(whole) + kRounding;
        return std::max(static_cast<std::uint64_t>(sequences), least);
    };
    const double minimum = std::min(census.own_share, 1.0);
    const auto part_of = [&](std::uint64_t whole, std::uint64_t least) {
        return share_of(std::max(part, minimum), whole, least);
    };
    const std::uint64_t slots = left(view_.shape().slots, census.dead_letters);
    std::uint64_t groups =
        std::min(left(slots, census.total.groups), left(part_of(slots, 1), census.own.groups));
    const std::uint64_t staleness = load_relaxed(state().max_staleness);
    if (staleness == kUnlimited) return groups;
    const std::uint64_t batch =
        std::min(load_acquire(state().batch_sequences), layout::kMaxSequences);
    const std::uint64_t beyond =
        shortage == 0 ? 0 : std::min(shortage - layout::kStuck, layout::kMaxSequences);
    const std::uint64_t window = (std::min(staleness, layout::kMaxSequences) + 1) * batch + beyond;
    const std::uint64_t least = std::max(census.own_group_size, group_size);
    std::uint64_t sequences =
        std::min(left(window, census.total.sequences),
                 left(std::min(part_of(window, least), window), census.own.sequences));
    // While parts are ignored, several other environments can have used up this one's minimum
    // together. Without that minimum no batch is formed, and more room for all would only bring
    // more groups of the others.
    if (shortage != 0 && minimum > 0) {
        sequences =
            std::max(sequences, left(share_of(minimum, window, least), census.own.sequences));
    }
    return std::min(groups, sequences / group_size);
}

std::uint64_t Board::credit(std::uint64_t environment, std::uint64_t group_size) const {
    return room(take_census(environment), group_size, load_acquire(state().shortage));
}

Board::Appetite Board::appetite() const {
    Appetite appetite;
    const std::uint64_t shortage = load_acquire(state().shortage);
    for (const EnvironmentStats& environment : living()) {
        const Census census = take_census(environment_hash(environment.name));
        const std::uint64_t size = std::max<std::uint64_t>(environment.group_size, 1);
        appetite.has_refused = appetite.has_refused || room(census, size, shortage) == 0;
        appetite.has_room =
            appetite.has_room || room(census, size, std::max(shortage, layout::kStuck)) > 0;
        appetite.on_the_way = census.total.sequences;
    }
    return appetite;
}

std::vector<Board::Unacknowledged> Board::with_other_trainers() const {
    std::vector<Unacknowledged> groups;
    for (std::uint64_t index = 0; index < view_.shape().slots; ++index) {
        const layout::QueueSlot& slot = view_.slot(index);
        const std::uint64_t word = load_acquire(slot.word);
        const layout::SlotWord decoded = layout::decode_slot(word);
        if (decoded.state != SlotState::Taken || decoded.owner == core_->self) continue;
        groups.push_back({index, word, layout::decode_tag(load_relaxed(slot.tag)).sequences});
    }
    return groups;
}

// A writer announces its request, then takes the census: of two writers at once at least one sees
// the other, and a request that is seen counts as granted. If both see each other, the one in the
// lower slot looks again; the other withdraws and gets no credit, although there may be room: it is
// woken when that is known, or looks again. A woken writer that gets no credit wakes no other:
// without credit, or while a process is stopped in this step, writers would wake each other without
// end.
bool Board::try_begin(std::uint64_t environment, std::uint64_t group_size, bool wakes) noexcept {
    constexpr unsigned kLooks = 4;
    BoardParticipant& participant = own();
    const std::uint64_t load = layout::encode_load({1, group_size});
    store_seq_cst(participant.asking, load);
    PENSTOCK_CRASH_POINT("trajectories.begin.asking");
    bool is_begun = false;
    bool has_met = false;
    for (unsigned look = 0; look < kLooks && !is_begun; ++look) {
        Census census = take_census(environment);
        const Load own = {1, group_size};  // counted in the census
        census.total.groups -= std::min(census.total.groups, own.groups);
        census.total.sequences -= std::min(census.total.sequences, own.sequences);
        census.own.groups -= std::min(census.own.groups, own.groups);
        census.own.sequences -= std::min(census.own.sequences, own.sequences);
        is_begun = room(census, group_size, load_acquire(state().shortage)) > 0;
        has_met = has_met || census.has_asker;
        if (!is_begun && (census.has_earlier_asker || !census.has_asker)) break;
    }
    if (is_begun) {
        // Before `asking` is cleared, so that others see at least one of the two.
        fetch_add_seq_cst(participant.running, load);
        PENSTOCK_CRASH_POINT("trajectories.begin.running");
    }
    store_seq_cst(participant.asking, 0);
    // the other writer may have withdrawn because of this request
    if (has_met && (is_begun || wakes)) credit_.notify();
    return is_begun;
}

EnvironmentStats Board::describe(unsigned place) const {
    const BoardParticipant& participant = participants_[place];
    EnvironmentStats stats;
    stats.name = name_of(participant);
    stats.writers = 1;
    stats.weight = real(participant.weight);
    stats.min_share = real(participant.min_share);
    stats.group_size = load_relaxed(participant.group_size);
    const Load running = layout::decode_load(load_seq_cst(participant.running));
    stats.running_groups = running.groups;
    stats.running_sequences = running.sequences;
    return stats;
}

std::vector<EnvironmentStats> Board::living() const {
    std::vector<EnvironmentStats> found;
    for (unsigned place = 0; place < view_.shape().participants; ++place) {
        if (!is_living(place)) continue;
        EnvironmentStats here = describe(place);
        const auto same = std::ranges::find(found, here.name, &EnvironmentStats::name);
        if (same == found.end()) {
            found.push_back(std::move(here));
            continue;
        }
        ++same->writers;
        same->min_share = std::max(same->min_share, here.min_share);
        same->group_size = std::max(same->group_size, here.group_size);
        same->running_groups += here.running_groups;
        same->running_sequences += here.running_sequences;
    }
    return found;
}

bool Board::is_idle() const noexcept {
    for (unsigned place = 0; place < view_.shape().participants; ++place) {
        if (!is_living(place)) continue;
        if (load_seq_cst(participants_[place].running) != 0) return false;
    }
    return true;
}

std::vector<EnvironmentStats> Board::environments() const {
    std::vector<EnvironmentStats> found = living();
    std::map<std::uint64_t, std::size_t> places;
    for (std::size_t at = 0; at < found.size(); ++at) {
        places.emplace(environment_hash(found[at].name), at);
    }
    // Of environments that have left only the hash is known.
    EnvironmentStats gone;
    for_each_waiting([&](const GroupTag& tag) {
        const auto place = places.find(tag.environment);
        EnvironmentStats& stats = place == places.end() ? gone : found[place->second];
        ++stats.waiting_groups;
        stats.waiting_sequences += tag.sequences;
        stats.largest_waiting = std::max(stats.largest_waiting, tag.sequences);
    });
    if (gone.waiting_groups > 0) found.push_back(std::move(gone));
    return found;
}

}  // namespace penstock::detail
