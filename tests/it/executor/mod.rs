//! What every executor must do, run over each of them, and what is particular to one.
//!
//! `executor_suite!{process []}` runs [`suite`] over a harness, with the further tests named; a further executor brings a
//! harness and a line here.

#[cfg(feature = "docker")]
mod daemon;
#[cfg(feature = "docker")]
mod docker;
#[cfg(feature = "docker")]
mod docker_pipes;
#[cfg(feature = "docker")]
mod hosts;
mod pipes;
mod process;
mod suite;

/// Instantiates the common suite for the harnesses in the modules named.
macro_rules! executor_suite {
    ($($name:ident [$($further:ident),*]),*) => { $(
        mod $name {
            use crate::executor::suite;
            use crate::support::executor_harness::$name::Harness;

            executor_suite!(@tests Harness: $($further,)*
                the_contract_is_seen_inside, arguments_and_streams, exit_codes, a_failure_file_explains,
                stderr_tail_is_kept, the_deadline_is_kept, a_stop_gives_grace, what_ignores_sigterm_is_killed,
                a_stop_may_come_before_the_start, launching_twice_is_once, logs_are_read_on_from_an_offset,
                lines_of_every_kind, a_restarted_server_finds_its_attempts, removing_forgets_everything,
                unknown_attempts_are_absent, an_unregistered_image_is_the_jobs_fault, odd_requests_are_refused,
                outputs_are_found, changes_wake_early, many_attempts_at_once);
        }
    )* };
    (@pipes $($name:ident),*) => { $(
        mod $name {
            use crate::executor::pipes as suite;
            use crate::support::executor_harness::$name::Harness;

            executor_suite!(@tests Harness:
                an_epoch_is_the_whole_channel, channels_are_read_independently, records_are_framed_and_unpacked,
                a_list_says_what_is_streamed, a_list_may_name_several_buckets, epochs_are_shuffled_by_the_seed, an_epoch_may_be_left_early,
                no_reader_holds_up_the_end, what_cannot_be_streamed_is_told);
        }
    )* };
    (@tests $harness:ident: $($test:ident),*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            suite::$test(&mut <$harness as crate::support::executor_harness::ExecutorHarness>::fresh().await).await;
        }
    )* };
}

mod common {
    executor_suite! {
        process [descendants_end_with_the_program, code_of_the_jobs_own_is_refused],
        plain_process [descendants_end_with_the_program, code_of_the_jobs_own_is_refused]
    }
    #[cfg(feature = "docker")]
    executor_suite! {docker []}
}

mod streamed {
    executor_suite! {@pipes process, plain_process}
    #[cfg(feature = "docker")]
    executor_suite! {@pipes docker_streaming}
}
