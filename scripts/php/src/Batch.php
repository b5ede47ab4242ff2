<?php

declare(strict_types=1);

namespace Mega;

use Mega\Exception\ConnectionException;
use Mega\Exception\InvalidArgumentException;

/**
 * Many calls of one caller: as many as the window allows are without an answer at a time, and the window is
 * filled again before the caller is given what came. Everything taken from the caller's list gets its result, even
 * where the list or the connection ends the batch.
 *
 * @internal
 */
final class Batch
{
    /** Seconds after which what was taken from a slow list is seen to, though the window is not full. */
    private const LINGER = 0.001;

    /** @var \SplQueue<Call> those that are settled */
    private readonly \SplQueue $inbox;

    private readonly \Generator $list;
    private bool $begun = false;
    private bool $exhausted = false;

    /** What ends the batch before its list does. */
    private ?\Throwable $ended = null;

    /** Calls begun whose results the caller does not have yet. */
    private int $open = 0;

    /** @param iterable<mixed, Message> $messages */
    public function __construct(
        private readonly Pipeline $pipeline,
        private readonly Command $command,
        iterable $messages,
        private readonly int $window,
    ) {
        if ($window < 1) {
            throw new InvalidArgumentException("window = $window: at least 1");
        }
        $this->inbox = new \SplQueue();
        $this->list = (static function () use ($messages) {
            yield from $messages;
        })();
    }

    /** @return \Generator<mixed, Result> under the list's keys, in the order of the answers */
    public function run(): \Generator
    {
        try {
            do {
                $this->fill();
                $this->pipeline->flush();
                if ($this->unanswered() > 0 && $this->inbox->isEmpty()) {
                    $this->wait();
                    continue;
                }
                while (!$this->inbox->isEmpty()) {
                    $call = $this->inbox->dequeue();
                    $this->open--;
                    yield $call->place => new Result($call->message, $call->failure);
                }
            } while ($this->open > 0 || !$this->isOver());
            if ($this->ended !== null) {
                throw $this->ended;
            }
        } finally {
            $this->pipeline->abandon($this->inbox);
        }
    }

    private function unanswered(): int
    {
        return $this->open - count($this->inbox);
    }

    private function isOver(): bool
    {
        return $this->exhausted || $this->ended !== null;
    }

    private function wait(): void
    {
        try {
            $this->pipeline->wait();
        } catch (ConnectionException $gone) {
            $this->ended ??= $gone;
        }
    }

    private function fill(): void
    {
        $written = Clock::now();
        while (!$this->isOver() && $this->unanswered() < $this->window) {
            $this->takeOne();
            if (Clock::now() - $written > self::LINGER) {
                $this->pipeline->flush();
                if (!$this->inbox->isEmpty() || !$this->pipeline->isConnected()) {
                    return;
                }
                $written = Clock::now();
            }
        }
    }

    private function takeOne(): void
    {
        try {
            // Only now: a list that waits for its next message does so when there is room for it.
            if ($this->begun) {
                $this->list->next();
            }
            $this->begun = true;
            if (!$this->list->valid()) {
                $this->exhausted = true;
                return;
            }
            $message = $this->list->current();
            if (!$message instanceof Message) {
                throw new InvalidArgumentException('the list holds ' . get_debug_type($message) . ', not a Message');
            }
        } catch (\Throwable $error) {
            $this->ended = $error;
            return;
        }
        $call = Call::message($this->command, $message, $this->inbox, $this->list->key());
        $this->open++;
        try {
            $this->pipeline->begin($call);
        } catch (InvalidArgumentException $tooLong) {
            $call->settle($tooLong);
        }
    }
}
