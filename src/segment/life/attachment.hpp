// What this process is attached to: each of its participants, whatever part of the program has it.
// So all can leave in good order when the process ends, also where a thread that will not run again
// still refers to one; and a wait can be told that nothing outside this process will end it.
#pragma once

#include <string>

#include "segment/life/segment.hpp"

namespace penstock::detail {

// One participant of this process, from enter() to withdraw(). The base of the concepts' cores.
class Attachment {
public:
    Attachment() noexcept = default;
    Attachment(const Attachment&) = delete;
    Attachment& operator=(const Attachment&) = delete;

    // Ends the stream that it feeds: waits for more get what is there, then Closed. Any thread.
    // Nothing for a participant that feeds none.
    virtual void end_stream() noexcept {}
    [[nodiscard]] virtual bool is_stream_over() const noexcept { return false; }
    // Whether what others wait for may come from it.
    [[nodiscard]] virtual bool feeds() const noexcept { return true; }
    // Leaves the segment at once: what the participant still holds goes back as if it had died, and
    // what refers to it changes nothing any more. Memory stays mapped, for what still reads it. No
    // thread may be inside a call. Repeatable.
    virtual void depart() noexcept = 0;

protected:
    ~Attachment() = default;
    // From here on the process counts as having this slot of that segment, which must outlive
    // withdraw(). Throws std::bad_alloc.
    void enter(const Segment& segment, unsigned slot);
    // The end of that. After it depart() is not at work and is not called. Repeatable.
    void withdraw() noexcept;

private:
    friend struct AttachmentTable;
    const Segment* place_ = nullptr;
    unsigned place_slot_ = 0;
};

// What a thread waits for, of one segment.
enum class Awaited : std::uint8_t {
    Message,  // or an object: what a participant that feeds the stream gives
    Room,     // what a participant that takes gives
};

// Whether only this process could end such a wait: no other is attached, or none that could. A
// participant of this process must be the one that would. False for a stream that is over: that
// wait ends by itself. `instance` is the segment's; false where this process is not attached to it.
bool is_awaited_in_vain(const std::string& instance, Awaited what);

// Ends the streams of that segment which this process feeds.
void end_streams(const std::string& instance) noexcept;

// Every participant of this process leaves. For the end of the process, when no other thread of it
// is inside a call of the library.
void depart_all() noexcept;

}  // namespace penstock::detail
