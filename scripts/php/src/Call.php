<?php

declare(strict_types=1);

namespace Mega;

use Mega\Exception\InvalidArgumentException;
use Mega\Exception\MegaException;

/**
 * One request and what is known of it, until its caller takes it out of the inbox.
 *
 * @internal
 */
final class Call
{
    /** Bytes of a frame beside its header and body. */
    private const FRAME = 16;

    /**
     * For how long mega and WeChat are relied on to recognise an id: ten minutes from the message's end, less one
     * for what is under way.
     */
    private const RECOGNISED = 540.0;

    /** Where its frame ends on the connection it was put on. */
    public int $end = 0;

    /** Whether it was once written as a whole and its answer was lost. */
    public bool $mayBeSent = false;

    public ?MegaException $failure = null;

    private readonly float $begun;

    /**
     * @param \SplQueue<Call> $inbox where it goes when it is settled
     * @param mixed           $place the caller's key for it
     */
    private function __construct(
        public readonly Command $command,
        public readonly string $key,
        public readonly ?Message $message,
        public readonly \SplQueue $inbox,
        public readonly mixed $place,
    ) {
        $this->begun = Clock::now();
    }

    public static function message(Command $command, Message $message, \SplQueue $inbox, mixed $place = null): self
    {
        return new self($command, $message->key, $message, $inbox, $place);
    }

    public static function tset(string $key, \SplQueue $inbox): self
    {
        Message::checkWord('template key', $key);
        return new self(Command::Tset, $key, null, $inbox, null);
    }

    public function frame(int $opaque): string
    {
        return Wire::request($this->header(), $opaque, $this->message?->body);
    }

    /** mega closes a connection at a frame that is too long, and with it what else is under way there. */
    public function checkLength(int $maxFrame): void
    {
        $size = self::FRAME + strlen($this->header()) + strlen($this->message?->body ?? '');
        if ($size > $maxFrame) {
            throw new InvalidArgumentException("$this has $size bytes, maxFrame is $maxFrame");
        }
    }

    /** Whether it may be written once more though it may have arrived. */
    public function isRepeatable(): bool
    {
        return $this->message === null
            || ($this->message->id !== null && Clock::now() - $this->begun < self::RECOGNISED);
    }

    public function settle(?MegaException $failure): void
    {
        $this->failure = $failure;
        $this->inbox->enqueue($this);
    }

    /** For error texts. */
    public function __toString(): string
    {
        return $this->message === null
            ? "the tset of template {$this->key}"
            : "the {$this->command->value} to {$this->message->openid} with template {$this->key}";
    }

    private function header(): string
    {
        $words = [$this->command->value];
        if ($this->message !== null) {
            $words[] = $this->message->openid;
        }
        $words[] = $this->key;
        if ($this->message?->id !== null) {
            $words[] = "id={$this->message->id}";
        }
        return implode(' ', $words);
    }
}
