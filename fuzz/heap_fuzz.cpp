// A heap whose words, and the descriptions of changes that seem to be under way, come from the
// input: every call ends, and its result lies inside the heap. The control block is ordinary
// memory, so that AddressSanitizer guards its ends.
#include <cstdlib>
#include <memory>
#include <system_error>

#include "fuzz/damage.hpp"
#include "segment/memory/heap.hpp"

namespace penstock::fuzzing {
namespace {

using detail::Heap;
using detail::HeapBlock;
using detail::HeapGeometry;
using layout::Word;
using layout::WordOperation;

constexpr unsigned kParticipants = 4;
constexpr std::uint64_t kNames = 6;  // words in which owners name their blocks
constexpr HeapGeometry kGeometry{1024, 192};

os::SharedFile& payload_file() {
    static auto* const file = [] {
        std::error_code error;
        auto* made =
            new os::SharedFile(os::SharedFile::create_anonymous("penstock-fuzz-heap", error));
        if (error || made->set_size(kGeometry.bytes())) std::abort();
        return made;
    }();
    return *file;
}

// names | operations | heap, as in a Store.
class Stage {
public:
    explicit Stage(FuzzedDataProvider& input) : input_(input) {
        words_.attach(control(), kBytes / sizeof(Word), operations(), kParticipants, 0);
        heap_ = Heap(kGeometry, heap_control(), words_, payload_file(), 0);
        heap_.prepare();
    }

    void live() {
        for (int i = 0; i < 60 && input_.remaining_bytes() > 0; ++i) step();
    }

private:
    static constexpr std::size_t kOperations = 128;  // behind the names
    static constexpr std::size_t kHeap = kOperations + kParticipants * sizeof(WordOperation);
    inline static const std::size_t kBytes = kHeap + kGeometry.control_bytes();

    [[nodiscard]] std::byte* control() const { return memory_.get(); }
    [[nodiscard]] std::byte* heap_control() const { return control() + kHeap; }
    [[nodiscard]] WordOperation* operations() const {
        return reinterpret_cast<WordOperation*>(control() + kOperations);
    }
    [[nodiscard]] Word& any_word() const {
        auto* const words = reinterpret_cast<Word*>(control());
        const auto count = kBytes / sizeof(Word);
        // Names and the first granules more often than the rest: most of the activity is there.
        if (input_.ConsumeBool()) return words[input_.ConsumeIntegralInRange<unsigned>(0, 5)];
        if (input_.ConsumeBool()) {
            return words[kHeap / sizeof(Word) + input_.ConsumeIntegralInRange<unsigned>(0, 15)];
        }
        return words[input_.ConsumeIntegralInRange<std::size_t>(0, count - 1)];
    }
    [[nodiscard]] Word& name() const {
        return reinterpret_cast<Word*>(
            control())[input_.ConsumeIntegralInRange<std::size_t>(0, kNames - 1)];
    }

    // A change that seems to be under way, with a reference to it in some words.
    void describe_change() {
        const auto participant = input_.ConsumeIntegralInRange<unsigned>(0, kParticipants);
        const auto sequence = input_.ConsumeIntegralInRange<std::uint64_t>(0, 3);
        const auto size = input_.ConsumeIntegralInRange<std::uint64_t>(0, 9);
        const std::uint64_t reference =
            layout::kWordMark | std::uint64_t{participant} << 53U | sequence;
        if (participant < kParticipants) {
            WordOperation& operation = operations()[participant];
            for (std::uint64_t at = 0; at < std::min<std::uint64_t>(size, layout::kMaxWords);
                 ++at) {
                Word& word = any_word();
                const auto place = &word - reinterpret_cast<Word*>(control());
                operation.place[at] = input_.ConsumeIntegralInRange<int>(0, 15) == 0
                                          ? input_.ConsumeIntegral<std::uint64_t>()
                                          : static_cast<std::uint64_t>(place);
                operation.expected[at] =
                    input_.ConsumeBool() ? word.load() : input_.ConsumeIntegral<std::uint64_t>();
                operation.desired[at] = input_.ConsumeBool()
                                            ? detail::successor(word.load(), 0)
                                            : input_.ConsumeIntegral<std::uint64_t>();
                if (input_.ConsumeBool()) word.store(reference);
            }
            operation.status =
                sequence << 6U | size << 2U | input_.ConsumeIntegralInRange<std::uint64_t>(0, 3);
        }
        if (input_.ConsumeBool()) any_word().store(reference);
    }
    void step() {
        switch (input_.ConsumeIntegralInRange<int>(0, 9)) {
            case 0:
                damage(input_, reinterpret_cast<std::uint8_t*>(control()), 0, kBytes);
                break;
            case 1:
            case 2:
                describe_change();
                break;
            case 3:
            case 4:
            case 5:
                allocate();
                break;
            case 6:
                free();
                break;
            case 7:
                resize();
                break;
            case 8:
                look();
                break;
            default:
                take_over();
                break;
        }
    }
    static void require_inside(HeapBlock block) {
        if (block.first > kGeometry.granules || block.length > kGeometry.granules - block.first) {
            std::abort();
        }
    }
    void allocate() {
        Word& word = name();
        const std::uint64_t alignment = std::uint64_t{64}
                                        << input_.ConsumeIntegralInRange<unsigned>(0, 15);
        const auto size = input_.ConsumeIntegralInRange<std::uint64_t>(0, kGeometry.bytes() + 1);
        require_inside(heap_.allocate({size, alignment, 64}, word, words_.read(word)).block);
    }
    void free() {
        Word& word = name();
        const std::uint64_t seen = words_.read(word);
        const HeapBlock block = heap_.block_named(detail::payload_of(seen));
        require_inside(block);
        if (block.length == 0) return;
        detail::WordPlan plan;
        plan.set(word, seen, 0);
        static_cast<void>(heap_.free(block, plan));
    }
    void resize() {
        HeapBlock block = heap_.block_named(detail::payload_of(words_.read(name())));
        if (block.length == 0) return;
        static_cast<void>(heap_.resize(
            block, input_.ConsumeIntegralInRange<std::uint64_t>(0, kGeometry.bytes() + 1)));
        require_inside(block);
    }
    void look() {
        static_cast<void>(heap_.use());
        require_inside(heap_.block_peeked(detail::payload_of(words_.peek(name()))));
        static_cast<void>(heap_.trim(0, input_.ConsumeBool() ? 65536 : 0));
    }
    void take_over() {
        const auto dead = input_.ConsumeIntegralInRange<unsigned>(1, kParticipants - 1);
        words_.finish(dead);
        heap_.reap(dead);
        heap_.restore_hints();
    }

    struct Free {
        void operator()(std::byte* memory) const { std::free(memory); }
    };
    FuzzedDataProvider& input_;
    std::unique_ptr<std::byte, Free> memory_{[] {
        void* const memory = std::aligned_alloc(layout::kApart, kBytes);
        if (memory == nullptr) std::abort();
        return static_cast<std::byte*>(std::memset(memory, 0, kBytes));
    }()};
    detail::MultiWord words_;
    Heap heap_;
};

}  // namespace
}  // namespace penstock::fuzzing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    FuzzedDataProvider input(data, size);
    penstock::fuzzing::Stage(input).live();
    return 0;
}
